"""Environments: reset, step, observation, outcome."""
