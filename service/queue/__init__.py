"""Waiting requests and their order. Knows no text and no torch."""
