"""What metrics and traces cost: in_process, metrics, tracing."""
