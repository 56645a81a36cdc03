"""Checkpoints that others published, on their way into the store. Nothing here is part of serving."""
