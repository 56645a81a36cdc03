"""Connections: how many are open, how many may be, and which were refused or ended for a limit."""

from collections.abc import Callable
from typing import Final

from service.metrics.families import Families

REASONS: Final = (
    "connections",
    "displaced",
    "descriptors",
    "stopping",
    "malformed",
    "header_bytes",
    "headers",
    "header_time",
    "pipelined",
    "unread",
    "write_time",
)


class ConnectionMetrics:
    def __init__(self, families: Families) -> None:
        self._open = families.gauge("agentprm_connections", "Open connections.")
        self._limit = families.gauge("agentprm_connections_limit", "Connections that may be open at once.")
        self._ended = families.counter(
            "agentprm_connections_ended", "Connections refused or ended for a limit.", ["reason"]
        )
        for reason in REASONS:
            self._ended.labels(reason)

    def watch_open(self, opened: Callable[[], int]) -> None:
        self._open.set_function(opened)

    def set_limit(self, connections: int) -> None:
        self._limit.set(connections)

    def on_ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()
