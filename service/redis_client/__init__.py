"""Redis from a URL, and what protects callers from a sick one."""
