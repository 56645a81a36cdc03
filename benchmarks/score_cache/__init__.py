"""Benchmark of the score cache over HTTP."""
