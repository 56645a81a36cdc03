"""Timing, conditions and tables of every benchmark, and the client processes."""
