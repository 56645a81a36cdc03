"""Benchmark of the service over HTTP against a plain server."""
