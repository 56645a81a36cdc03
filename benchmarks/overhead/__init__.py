"""Cost of metrics and of traces, measured in one process."""
