"""Which models answer."""
