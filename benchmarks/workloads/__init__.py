"""Tokens (W1-W5), requests, textcraft (recorded), models."""
