"""Redis clients from a URL, and a circuit breaker for a Redis that fails."""
