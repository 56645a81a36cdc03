"""Idle and lent connections of one process and, if they are asynchronous, of one event loop."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import httpx

IDLE_SECONDS: Final = 5.0
"""Idle time after which a connection is closed, as httpx does: a proxy on the way may close it soon after."""

H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)


class Connection(Generic[H]):
    """An httpx client that has one connection and serves one request at a time."""

    def __init__(self, http: H) -> None:
        self.http = http
        self.idle_since = math.inf
        self._socket: tuple[int, int] | None = None

    def note_socket(self, response: httpx.Response) -> None:
        stream = response.extensions.get("network_stream")
        socket = None if stream is None else stream.get_extra_info("socket")
        self._socket = None
        if socket is not None and socket.fileno() >= 0:
            self._socket = socket.fileno(), os.fstat(socket.fileno()).st_ino

    def leave_to_parent(self, null: int) -> None:
        """Puts ``null`` in place of the inherited socket, for good.

        The parent's connection stays as it is: nothing is sent, no lock is needed, and an event loop that is also
        inherited cannot take the socket from the parent's. The socket is open no longer than the parent wants.
        """
        if self._socket is None:
            return
        descriptor, inode = self._socket
        with suppress(OSError):  # closed since
            if os.fstat(descriptor).st_ino == inode:
                os.dup2(null, descriptor, inheritable=False)


class Pool(Generic[H]):
    """Connections of a client, as many as it used at once; threads may share them."""

    def __init__(self, open_connection: Callable[[], H]) -> None:
        self._open_connection = open_connection
        self._lock = threading.Lock()
        self._connections: set[Connection[H]] = set()
        self._idle: deque[Connection[H]] = deque()  # the last used is at the right and is taken first
        self._closed = False

    def take(self) -> Connection[H]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = Connection(self._open_connection())
        with self._lock:
            self._connections.add(connection)
        return connection

    def give_back(self, connection: Connection[H]) -> list[H]:
        """Keeps a connection for another request. Returns those that are to be closed now."""
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(connection)
            oldest = math.inf if self._closed else connection.idle_since - IDLE_SECONDS
            return self._remove_idle(oldest)

    def discard(self, connection: Connection[H]) -> H:
        with self._lock:
            self._connections.discard(connection)
        return connection.http

    def close(self) -> list[H]:
        """Keeps no connection from now on. Returns those that are to be closed now; the others are in use."""
        with self._lock:
            self._closed = True
            return self._remove_idle(math.inf)

    def leave_to_parent(self) -> list[H]:
        """Gives up all connections after a fork, without the lock, which another thread of the parent may hold.

        Returns those that were idle. What is in use is in the hands of threads that do not exist in this process.
        """
        with suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            for connection in self._connections:
                connection.leave_to_parent(null)
            os.close(null)
        return [connection.http for connection in self._idle]

    def _remove_idle(self, since: float) -> list[H]:
        removed = []
        while self._idle and self._idle[0].idle_since < since:
            connection = self._idle.popleft()
            self._connections.discard(connection)
            removed.append(connection.http)
        return removed
