"""Measures of a checkpoint on held-out goals."""
