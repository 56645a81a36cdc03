"""A connection that gets one reply, whatever it asks for."""

import asyncio


class Refusal(asyncio.Protocol):
    """Answers the first bytes of a request with ``reply``, then reads on until the caller is done.

    Closing at once would reset the connection if bytes of the request are unread, and the caller would lose the reply.
    """

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._transport: asyncio.Transport
        self._done = asyncio.get_running_loop().create_future()

    @property
    def silent(self) -> bool:
        """True until the caller has sent something."""
        return bool(self._reply)

    async def read_on(self, seconds: float) -> None:
        """Waits these seconds for the caller to close the connection, or for ``end``; then ends the connection."""
        await asyncio.wait([self._done], timeout=seconds)
        self._transport.abort()

    def end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        if self._reply:
            self._transport.write(self._reply)
            self._reply = b""
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        self.end()
