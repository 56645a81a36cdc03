"""All open connections of a server: how many there may be, what each waits for, and which were ended for a limit."""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Final, Protocol

from service.http import limits
from service.http.server.deadlines import Deadlines

logger = logging.getLogger(__name__)

LOG_SECONDS: Final = 60
"""Seconds between two log lines for the same reason. A flood must not fill the log."""
REASONS: Final = {
    "connections": "refused with 503, because as many are open as may be",
    "displaced": "closed while idle, to make room for new ones",
    "descriptors": "kept waiting, because the process has no file descriptor left",
    "stopping": "answered 503, because the service stops",
    "malformed": "ended: their requests are no valid HTTP/1.1",
    "header_bytes": "ended: the headers of a request were too large",
    "headers": "ended: a request had too many headers",
    "header_time": "ended: the headers of a request did not arrive in time",
    "pipelined": "ended: they sent too many requests ahead of the replies",
    "unread": "ended: they sent on after an early reply",
    "write_time": "ended: they did not take their replies",
}
"""Why connections are refused or ended, as the label of a metric and as the end of a log line."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of connections; ``service.http.limits`` says why each amount is as it is."""

    connections: int = limits.MAX_CONNECTIONS
    keep_alive_seconds: float = limits.KEEP_ALIVE_SECONDS
    displaced_seconds: float = limits.DISPLACED_SECONDS
    header_bytes: int = limits.HEADER_BYTES
    headers: int = limits.HEADERS
    header_seconds: float = limits.HEADER_SECONDS
    handshake_seconds: float = limits.HANDSHAKE_SECONDS
    pipelined: int = limits.PIPELINED
    unread_bytes: int = limits.UNREAD_BYTES
    unread_seconds: float = limits.UNREAD_SECONDS
    write_bytes: int = limits.WRITE_BYTES
    write_seconds: float = limits.WRITE_SECONDS
    refused_seconds: float = limits.REFUSED_SECONDS
    last_request_seconds: float = limits.LAST_REQUEST_SECONDS


class Waiting(Protocol):
    """A connection that others end when its time is over."""

    def close(self) -> None:
        """Ends an idle connection."""

    def on_header_timeout(self) -> None: ...
    def on_unread_timeout(self) -> None: ...
    def on_write_timeout(self) -> None: ...


class Connections:
    """Knows what every open connection waits for.

    Each is in at most one of ``idle`` (no byte of a request is there), ``heads`` (the headers are incomplete) and
    ``unread`` (the request is answered, its body still arrives); in none of them while a request is in flight. It is in
    ``writing`` while its caller takes no reply.

    Args:
        loop: the event loop of the server.
        limits: what connections may cost.
        opened: uvicorn's set of open connections.
        on_ended: called with one of ``REASONS`` for each connection that is refused or ended for a limit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        opened: Sized,
        on_ended: Callable[[str], None],
    ) -> None:
        self.limits = limits
        self.stopping = False
        self.opening: set[Waiting] = set()
        """Connections that are accepted and not open yet, such as those in a TLS handshake."""
        self.idle = Deadlines[Waiting](loop, limits.keep_alive_seconds, lambda waiting: waiting.close())
        self.heads = Deadlines[Waiting](loop, limits.header_seconds, lambda waiting: waiting.on_header_timeout())
        self.unread = Deadlines[Waiting](loop, limits.unread_seconds, lambda waiting: waiting.on_unread_timeout())
        self.writing = Deadlines[Waiting](loop, limits.write_seconds, lambda waiting: waiting.on_write_timeout())
        self._loop = loop
        self._opened = opened
        self._on_ended = on_ended
        self._unlogged: Counter[str] = Counter()
        self._logged: dict[str, float] = {}

    def count(self) -> int:
        return len(self._opened) + len(self.opening)

    def make_room(self) -> bool:
        """Returns whether one more connection may be opened. Closes the longest idle one for it if there is no room.

        A client must expect the end of an idle connection at any time (RFC 9112, 9.5), so closing one harms nobody,
        and connections that never send anything cannot keep others out. nginx does the same.
        """
        return self.count() < self.limits.connections or self.close_idle()

    def close_idle(self) -> bool:
        """Closes the longest idle connection. Returns whether there was one."""
        idle = self.idle.oldest(self.limits.displaced_seconds)
        if idle is None:
            return False
        self.ended("displaced")
        self.idle.discard(idle)  # the next one to come in this moment needs another
        idle.close()
        return True

    def forget(self, connection: Waiting) -> None:
        """Removes a connection that is lost."""
        for deadlines in (self.idle, self.heads, self.unread, self.writing):
            deadlines.discard(connection)

    def ended(self, reason: str) -> None:
        """Counts a connection that is refused or ended, and logs it unless the last line is too recent."""
        self._on_ended(reason)
        self._unlogged[reason] += 1
        now = self._loop.time()
        if now - self._logged.get(reason, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged[reason] = now
            logger.warning("%d connections were %s", self._unlogged.pop(reason), REASONS[reason])


def raise_descriptor_limit() -> int:
    """Raises the process's soft limit of file descriptors as far as ``MAX_CONNECTIONS`` need it. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MAX_CONNECTIONS + limits.SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def connections_within(descriptors: int) -> int:
    """Returns how many connections fit into that many file descriptors; at least half are left to connections."""
    return min(limits.MAX_CONNECTIONS, max(descriptors - limits.SPARE_DESCRIPTORS, descriptors // 2))
