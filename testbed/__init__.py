"""Real programs on free ports, for benchmarks, deploy/observe and tests."""
