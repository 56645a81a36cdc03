"""A connection that gets one reply, whatever it asks for."""

import asyncio


class Refusal(asyncio.Protocol):
    """Answers the first bytes of a request with ``reply``, then reads on until the caller is done.

    Closing at once would reset the connection if bytes of the request are unread, and the caller would lose the reply.
    """

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._transport: asyncio.Transport
        self._lost = asyncio.get_running_loop().create_future()

    async def read_on(self, seconds: float) -> None:
        """Waits until the caller has closed the connection, and ends it after these seconds."""
        await asyncio.wait([self._lost], timeout=seconds)
        self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        if self._reply:
            self._transport.write(self._reply)
            self._reply = b""
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        self._lost.set_result(None)
