"""The models that answer requests."""
