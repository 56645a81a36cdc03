"""A client connection in plain bytes: cheap enough for overload, and able to hang up half way.

It reads only what the service writes: HTTP/1.1 with a content-length. Anything else is ``IllFormed``.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, Self


class IllFormed(Exception):
    """The reply is no HTTP answer of this service. Messages never quote it, since it may hold an agent's text."""


class Answer(NamedTuple):
    """One HTTP answer; ``headers`` are keyed by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes


def request_bytes(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    fields = {"host": "stress", "content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


class Connection:
    """A connection for one request at a time; it cannot be used after an error."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await asyncio.open_connection(host, port))

    @property
    def usable(self) -> bool:
        """False once the service is known to have closed it."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def send(self, request: bytes) -> None:
        self._writer.write(request)

    async def receive(self) -> Answer:
        """Returns the next answer.

        Raises:
            IllFormed: the connection ended first, or the bytes are no answer.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, headers = _parse(head)
            return Answer(status, headers, await self._reader.readexactly(int(headers["content-length"])))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            raise IllFormed(f"no whole answer: {type(error).__name__}") from error
        except (ValueError, KeyError, IndexError) as error:
            raise IllFormed(f"no HTTP answer: {type(error).__name__}") from error

    async def ask(self, request: bytes) -> Answer:
        self.send(request)
        return await self.receive()

    async def end(self) -> None:
        """Returns when the service has closed the connection, as it was asked to.

        Raises:
            IllFormed: the service sends more bytes.
        """
        with suppress(ConnectionError):  # a reset also closes
            if await self._reader.read():
                raise IllFormed("more than one answer to one request")

    def hang_up(self, *, rudely: bool = False) -> None:
        """Closes the connection; ``rudely`` closes at once with a reset and drops unsent bytes."""
        if rudely:
            self._writer.transport.abort()
        else:
            self._writer.close()


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    protocol, status, *_ = status_line.split(" ")
    if protocol != "HTTP/1.1":
        raise ValueError("another protocol")
    pairs = (line.partition(":") for line in lines if line)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}
