"""Token ids to raw scores."""
