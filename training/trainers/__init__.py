"""Trainers: next tokens, then promises."""
