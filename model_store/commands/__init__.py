"""What ``python -m model_store`` does: each command takes its arguments and returns a report."""
