"""A server with small limits around a small application, in a thread of the test."""

import asyncio
import json
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.http.limits import BACKLOG
from service.http.middleware.asgi import Receive, Scope, Send
from service.http.server.connections import ConnectionLimits
from service.http.server.server import Server, server_config
from testbed.processes import HOST, PATIENCE, wait_until

CHUNK = 1 << 16
Address = tuple[str, int]


class Application:
    """Answers with what it was asked, and some paths in a way of their own.

    ``/early`` replies before it reads the body, ``/held`` after ``release`` or when the caller leaves, and ``/large``
    with megabytes.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held = threading.Semaphore(0)
        """Counts the requests for ``/held`` that have begun."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._released = asyncio.Event()
        self.ended = threading.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.asked.append(scope["path"])
        body = b"" if scope["path"] == "/early" else await read(receive)
        if scope["path"] == "/held":
            self.held.release()
            await self._hold(receive)
        try:
            await reply(scope, body, send)
        finally:
            self.ended.release()

    def release(self) -> None:
        """Lets every held request go on, those that come later too."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._released.set)

    async def _hold(self, receive: Receive) -> None:
        waits = [asyncio.ensure_future(self._released.wait()), asyncio.ensure_future(receive())]
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()

    async def _live(self, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            phase = (await receive())["type"]
            await send({"type": f"{phase}.complete"})
            if phase == "lifespan.shutdown":
                return


async def read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def reply(scope: Scope, body: bytes, send: Send) -> None:
    told = {"path": scope["path"], "body": body.decode("latin-1"), "headers": [n.decode() for n, _ in scope["headers"]]}
    parts = [b"x" * CHUNK] * 512 if scope["path"] == "/large" else [json.dumps(told).encode()]
    length = str(sum(map(len, parts))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for at, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part, "more_body": at < len(parts)})


class Serving:
    """A running server: its address, its application, and why connections ended."""

    def __init__(self, listening: socket.socket, certificate: Path | None, limits: dict[str, float]) -> None:
        self.app = Application()
        self.address: Address = listening.getsockname()
        self.listening = listening
        self.reasons: queue.Queue[str] = queue.Queue()
        config = server_config(self.app, drain_seconds=int(PATIENCE), certificate=certificate, key=certificate)
        self.server = Server(config, ConnectionLimits(**limits), self.reasons.put)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})

    def reason(self) -> str:
        """Waits for the next connection that is refused or ended for a limit."""
        return self.reasons.get(timeout=PATIENCE)

    def wait_until_open(self, connections: int) -> None:
        wait_until(lambda: self.server.open_connections() == connections, f"{connections} connections are not open")

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self.server.started, "the server did not start")

    def stop(self) -> None:
        """Tells the server to stop, as SIGTERM does."""
        self.server.should_exit = True

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def serving(
    listening: socket.socket | None = None, certificate: Path | None = None, **limits: float
) -> Iterator[Serving]:
    if listening is None:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with listening:
        listening.bind((HOST, 0))
        listening.listen(BACKLOG)
        running = Serving(listening, certificate, limits)
        running.start()
        try:
            yield running
        finally:
            running.app.release()
            running.stop()
            running.join()


def connect(address: Address, certificate: Path | None = None, received: int | None = None) -> socket.socket:
    """Returns a connection that waits with a bound. ``received``: bytes of its receive buffer in the kernel."""
    connection = socket.socket()
    if received is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    if certificate is None:
        return connection
    context = ssl.create_default_context(cafile=str(certificate))
    return context.wrap_socket(connection, server_hostname=HOST)


def read_to_end(connection: socket.socket) -> bytes:
    """Returns all that the server sends until it closes the connection. A reset is an error."""
    parts = []
    while part := connection.recv(CHUNK):
        parts.append(part)
    return b"".join(parts)


def read_reply(connection: socket.socket) -> bytes:
    """Returns one whole reply."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    length = next(int(value) for name, _, value in fields if name == b"content-length")
    while len(body) < length:
        body += receive(connection)
    return head + b"\r\n\r\n" + body


def receive(connection: socket.socket) -> bytes:
    part = connection.recv(CHUNK)
    assert part, "the connection was closed before the end of a reply"
    return part


def exchange(address: Address, *parts: bytes) -> bytes:
    """Sends the parts over a new connection and returns all that comes back until the server closes it."""
    with connect(address) as connection:
        for part in parts:
            connection.sendall(part)
        return read_to_end(connection)


def request(path: str, body: bytes = b"", *, method: str = "POST", headers: str = "", close: bool = False) -> bytes:
    """Returns the bytes of a request; ``headers`` are whole lines with their ends."""
    close_line = "Connection: close\r\n" if close else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}{close_line}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def told(answer: bytes) -> dict[str, object]:
    """Returns the JSON body of the last reply."""
    parsed: dict[str, object] = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    return parsed
