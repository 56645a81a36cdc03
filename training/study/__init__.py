"""Experiments on real language models, and where their base models come from."""
