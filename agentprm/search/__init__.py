"""Acting with scores, whoever computes them; no torch."""
