"""Throughput, plain_server, servers, report."""
