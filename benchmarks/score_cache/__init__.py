"""Suite, replica, repeat, hits, hang, echo_server, report."""
