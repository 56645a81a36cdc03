"""A TCP proxy in front of a real server that sees every command and can spoil every reply.

It reads one command, fetches the server's reply to it, and sends what the fault in force makes of that reply.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from testbed.processes import HOST

Command = tuple[bytes, ...]
Fault = Callable[[bytes], Awaitable[bytes]]
"""Makes what is sent of a whole reply of the server."""

HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NO_SCORE: Final = b"$-1\r\n"


class Cut(Exception):
    """The connection ends after these bytes."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent


async def passing(reply: bytes) -> bytes:
    return reply


async def hanging(_: bytes) -> bytes:
    """Never answers; the connection stays open."""
    await asyncio.Event().wait()
    raise AssertionError


async def cutting(_: bytes) -> bytes:
    raise Cut(b"")


async def cutting_halfway(reply: bytes) -> bytes:
    raise Cut(reply[: len(reply) // 2])


def held(release: asyncio.Event) -> Fault:
    """The reply comes when the event is set."""

    async def hold(reply: bytes) -> bytes:
        await release.wait()
        return reply

    return hold


def slow(seconds: float) -> Fault:
    """Every reply comes later by these seconds."""

    async def delay(reply: bytes) -> bytes:
        await asyncio.sleep(seconds)
        return reply

    return delay


def answering(reply: bytes) -> Fault:
    """Every command gets the same reply."""

    async def answer(_: bytes) -> bytes:
        return reply

    return answer


async def swapping(reply: bytes) -> bytes:
    """The values of an array in reverse order, so that each has another's key."""
    header, *values = elements(reply)
    return header + b"".join(reversed(values))


async def altering(reply: bytes) -> bytes:
    """Every value with its last byte changed."""
    header, *values = elements(reply)
    return header + b"".join(
        value if value == NO_SCORE else value[:-3] + bytes([value[-3] ^ 1]) + value[-2:] for value in values
    )


def elements(reply: bytes) -> list[bytes]:
    """The header of an array of bulk strings, and each of those; any other reply is a header alone."""
    end = reply.index(b"\r\n") + 2
    if reply[:1] != b"*":
        return [reply]
    found = [reply[:end]]
    while end < len(reply):
        start, length = end, int(reply[end + 1 : reply.index(b"\r\n", end)])
        end = reply.index(b"\r\n", end) + 2 + (length + 2 if length >= 0 else 0)
        found.append(reply[start:end])
    return found


class Proxy:
    """``fault`` spoils the replies to the commands named in ``to``, of every connection, from the next one on."""

    def __init__(self, server_port: int) -> None:
        self.fault: Fault = passing
        self.to: frozenset[bytes] = frozenset((b"MGET", b"SET"))
        self.commands: list[Command] = []
        self.opened = 0
        self.port = 0
        self._server_port = server_port
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def open(self) -> int:
        """Connections of clients that neither side has ended."""
        return len(self._connections)

    def reads(self) -> int:
        """Number of reads of callers' keys; probes do not count."""
        return sum(words[0] == b"MGET" and not words[1].endswith(b":probe") for words in self.commands)

    def heal(self) -> None:
        self.fault = passing

    async def cut(self) -> None:
        """Ends every connection there is, whatever it waits for."""
        for connection in list(self._connections):
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer), name="proxied connection")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        self.opened += 1

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serves one connection until either side ends it."""
        commands: asyncio.Queue[tuple[Command, bytes]] = asyncio.Queue()
        both = {
            asyncio.create_task(self._answer(commands, writer)),
            asyncio.create_task(_queue_commands(reader, commands)),
        }
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.close()
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _answer(self, commands: "asyncio.Queue[tuple[Command, bytes]]", client: StreamWriter) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._server_port)
        try:
            while True:
                command, raw = await commands.get()
                self.commands.append(command)
                writer.write(raw)
                reply = await read_reply(reader)
                client.write(await self.fault(reply) if command[0] in self.to else reply)
                await client.drain()
        except Cut as cut:
            client.write(cut.sent)
        finally:
            writer.close()


@asynccontextmanager
async def proxied(server_port: int) -> AsyncIterator[Proxy]:
    """A proxy that listens; it ends every connection when it closes."""
    proxy = Proxy(server_port)
    listener = await asyncio.start_server(proxy.accept, HOST, 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()
        await proxy.cut()
        await listener.wait_closed()


async def _queue_commands(reader: StreamReader, commands: "asyncio.Queue[tuple[Command, bytes]]") -> None:
    """Queues the client's commands until it disconnects."""
    while header := await reader.readline():
        raw, words = [header], []
        for _ in range(int(header[1:])):
            raw.append(await reader.readline())
            raw.append(await reader.readexactly(int(raw[-1][1:]) + 2))
            words.append(raw[-1][:-2])
        await commands.put((tuple(words), b"".join(raw)))


async def read_reply(reader: StreamReader) -> bytes:
    """The bytes of one whole RESP2 reply.

    Raises:
        ConnectionError: the server is gone.
    """
    line = await reader.readline()
    if not line:
        raise ConnectionError("the server is gone")
    kind, length = line[:1], line[1:-2]
    if kind == b"*":
        return line + b"".join([await read_reply(reader) for _ in range(int(length))])
    if kind == b"$" and int(length) >= 0:
        return line + await reader.readexactly(int(length) + 2)
    return line
