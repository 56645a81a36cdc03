"""Whole episodes as training data."""
