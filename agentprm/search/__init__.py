"""Choosing actions by scores, whoever computes them; needs no torch."""
