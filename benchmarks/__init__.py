"""Speed as ratios measured side by side in one run, for the engine and over HTTP: ``python -m benchmarks``."""
