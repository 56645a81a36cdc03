"""Token ids in, raw scores out; the only place with torch."""
