"""Environments, each of which makes episodes and scores how they end, and the policies that act in them."""
