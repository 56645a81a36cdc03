"""Prometheus as a process on a free port: the files of ``deploy/prometheus`` with other targets, and its answers."""
