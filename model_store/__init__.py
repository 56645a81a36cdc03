"""Checkpoints: what they hold, how text becomes tokens, how tokens become scores."""
