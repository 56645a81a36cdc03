"""A connection that gets one reply, whatever it asks for."""

import asyncio

from service.http.server.deadlines import Deadlines


class Refusal(asyncio.Protocol):
    """Answers the first bytes of a request with ``reply``, then reads on until the caller is done.

    Closing at once would reset the connection if bytes of the request are unread, and the caller would lose the reply.
    Add it to ``refusals``, which calls ``close`` in the end.
    """

    def __init__(self, reply: bytes, refusals: Deadlines["Refusal"]) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._reply = reply
        self._refusals = refusals
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        if self._reply and self._transport is not None:
            self._transport.write(self._reply)
            self._reply = b""
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        self._refusals.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        if self._transport is None:  # its TLS handshake has not succeeded
            self.connection_lost(None)
        else:
            self._transport.abort()
