"""Accepts connections: as many as there is room for, and at the end all that still wait in the kernel."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from agentprm.errors import NotReady
from service.http.server.connections import Connections
from service.http.server.protocol import HTTPProtocol
from service.http.server.refusal import Refusal
from service.http.server.replies import render

ACCEPTS_AT_ONCE: Final = 16
"""Connections accepted in a row; then those that are open get a turn."""
REFUSALS_AT_ONCE: Final = 32
"""Connections that are told 503 at once, because they take spare descriptors."""
PAUSE_SECONDS: Final = 0.1
"""Seconds until accepting is tried again, when the process has no descriptor left for it."""
STOP_TRIES: Final = 20
"""Tries at the end, ``PAUSE_SECONDS`` apart, to refuse all that wait."""
LOST: Final = frozenset({errno.EINTR, errno.ECONNABORTED, errno.EPROTO})
"""Errors of ``accept`` about a connection that is gone; the next one may be well."""
UNAVAILABLE: Final = "503 Service Unavailable"
FULL: Final = render(NotReady("all connections of this service are in use", retry_after=1), UNAVAILABLE)
STOPPING: Final = render(NotReady("the service stops", retry_after=1), UNAVAILABLE)


class Listener:
    """Accepts connections on a listening socket.

    asyncio's own server has no bound, closes connections without a word when descriptors run out, and at its end the
    kernel resets those that it has not accepted.

    Args:
        listening: the socket; ``stop`` closes it.
        protocol: makes the protocol of a connection.
        connections: says whether there is room.
        tls: the certificate; None for plain HTTP.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], HTTPProtocol],
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._protocol = protocol
        self._connections = connections
        self._tls = tls
        self._refusals: dict[Refusal, None] = {}
        self._refusing: set[asyncio.Task[Any]] = set()
        self._opening: set[asyncio.Task[Any]] = set()
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self._accept_waiting)

    async def stop(self) -> None:
        """Answers 503 to every connection that waits to be accepted, and closes the socket."""
        self._pause()
        for _ in range(STOP_TRIES):
            if self._refuse_waiting():
                break
            await asyncio.sleep(PAUSE_SECONDS)  # until some connections have given back their descriptors
        self._listening.close()
        seconds = self._connections.limits.refused_seconds
        if unfinished := [*self._opening, *self._refusing]:
            await asyncio.wait(unfinished, timeout=2 * seconds)

    def _accept_waiting(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection = self._accept()
            except OSError:
                self._connections.ended("descriptors")
                self._connections.close_idle()
                self._pause_for_a_moment()
                return
            if connection is None:
                return
            if self._connections.make_room():
                self._open(connection)
            else:
                self._end_a_refusal()
                self._refuse(connection, FULL, "connections")

    def _accept(self) -> socket.socket | None:
        """Returns the next connection that waits, None if there is none.

        Raises:
            OSError: the process or the system has no descriptor or memory left.
        """
        while True:
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno not in LOST:
                    raise
            else:
                connection.setblocking(False)
                return connection

    def _pause_for_a_moment(self) -> None:
        """Stops accepting: the socket stays readable, and the loop would do nothing but try again."""
        self._pause()
        self._again = self._loop.call_later(PAUSE_SECONDS, self.start)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening.fileno())
        if self._again is not None:
            self._again.cancel()

    def _refuse_waiting(self) -> bool:
        """Refuses every connection that waits. Returns whether none is left; some are if descriptors run out."""
        with suppress(OSError):
            while (connection := self._accept()) is not None:
                self._refuse(connection, STOPPING, "stopping")
            return True
        return False

    def _open(self, connection: socket.socket) -> None:
        protocol = self._protocol()
        self._connections.opening.add(protocol)
        _keep(self._opening, self._serve(connection, protocol))

    def _refuse(self, connection: socket.socket, reply: bytes, reason: str) -> None:
        self._connections.ended(reason)
        refusal = Refusal(reply)
        self._refusals[refusal] = None
        _keep(self._refusing, self._answer(connection, refusal))

    def _end_a_refusal(self) -> None:
        """Makes room for one more. Who has sent nothing gives way first, so a flood of silence keeps no reply back."""
        if len(self._refusals) >= REFUSALS_AT_ONCE:
            silent = (refusal for refusal in self._refusals if refusal.silent)
            given_up = next(silent, next(iter(self._refusals)))
            del self._refusals[given_up]
            given_up.end()

    async def _serve(self, connection: socket.socket, protocol: HTTPProtocol) -> None:
        await self._connect(connection, protocol, self._connections.limits.handshake_seconds)
        self._connections.opening.discard(protocol)

    async def _answer(self, connection: socket.socket, refusal: Refusal) -> None:
        seconds = self._connections.limits.refused_seconds
        if await self._connect(connection, refusal, seconds):
            await refusal.read_on(seconds)
        self._refusals.pop(refusal, None)

    async def _connect(self, connection: socket.socket, protocol: asyncio.Protocol, seconds: float) -> bool:
        """Returns whether the connection is open. If not, the caller is gone, or the TLS handshake failed."""
        times = {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": self._connections.limits.refused_seconds}
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._tls, **(times if self._tls is not None else {})
            )
        except OSError:
            return False
        return True


def _keep(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> None:
    """Runs ``work`` as a task that is in the set until it is done."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
