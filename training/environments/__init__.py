"""Environments, which make episodes and score their ends, and the policies that act in them."""
