"""Requests that wait, and whose turn it is. Knows no text and no torch."""
