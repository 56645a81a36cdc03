"""HTTP/1.1 on one connection: uvicorn's protocol over llhttp, with bounds on what a caller may cost."""

import asyncio
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.http.server.connections import Connections
from service.http.server.refused import Refused, headers_too_late, headers_too_long, malformed, too_far_ahead
from service.http.server.replies import render


class ReplyTransport:
    """The part of a transport that a reply needs. To close it is to close the connection once the caller can know."""

    def __init__(self, transport: asyncio.Transport, connection: "HTTPProtocol") -> None:
        self._write = transport.write
        self.is_closing = transport.is_closing
        self.close = connection.close_after_reply

    def write(self, data: bytes) -> None:
        if not self.is_closing():  # uvicorn does not tell requests that were sent ahead that the caller is gone
            self._write(data)


class HTTPProtocol(HttpToolsProtocol):
    """One connection.

    The parser calls ``on_message_begin``, ``on_url``, ``on_header`` for each header, ``on_headers_complete``,
    ``on_body`` for each part, ``on_header`` for each field of a trailer, and ``on_message_complete``.

    Args:
        config: as uvicorn passes it, like the next three.
        server_state: uvicorn's set of connections, among others.
        app_state: the state of the application's lifespan.
        _loop: the event loop.
        connections: what every connection of the server waits for.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._limits = connections.limits
        self._reply_transport: Any = None
        self._parsed_bytes = 0
        """Bytes since the last end of headers, part of a body, or end of a request. The parser keeps most of them."""
        self._headers_left = 0
        self._in_request = False
        self._in_headers = False
        self._unread_left: int | None = None
        """Bytes that may still come of a request that is answered; None if there is none."""
        self._closing = False
        self._broken = False  # the parser has failed, and what comes after is not parsed
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reply_transport = ReplyTransport(transport, self)
        self._connections.opening.discard(self)
        self._connections.idle.add(self)
        if self._connections.stopping:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self)
        super().connection_lost(exc)
        self._reply_transport = None  # it refers back to this object

    def data_received(self, data: bytes) -> None:
        if self._unread_left is not None:
            self._unread_left -= len(data)
            if self._unread_left < 0:
                self.on_unread_timeout()
        at = 0
        while at < len(data) and not self._broken and not self.transport.is_closing():
            room = self._limits.header_bytes - self._parsed_bytes
            if room > 0:
                at += self._parse(data[at : at + room])
            else:
                self._refuse(headers_too_long(self._limits.header_bytes, "bytes"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.writing.discard(self)

    def on_message_begin(self) -> None:
        if self._closing or len(self.pipeline) >= self._limits.pipelined:
            raise too_far_ahead()
        super().on_message_begin()
        self._in_request = self._in_headers = True
        self._headers_left = self._limits.headers
        if not self._answering:
            self._connections.idle.discard(self)
            self._connections.heads.add(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_left -= 1
        if self._headers_left < 0:
            raise headers_too_long(self._limits.headers, "headers")
        if self._in_headers:  # a trailer must not add to the headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._parsed_bytes = 0
        self._in_headers = False
        self._connections.heads.discard(self)
        super().on_headers_complete()
        self.cycle.transport = self._reply_transport
        if self._connections.stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._parsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._parsed_bytes = 0
        self._in_request = False
        super().on_message_complete()
        if self._unread_left is not None:
            self._end_unread()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # one of our deadlines takes its place
        if self.transport.is_closing() or self._answering:
            return
        if not self._in_request:
            self._connections.idle.add(self)
        elif self._in_headers:
            self._connections.heads.add(self)
        else:
            self._discard_rest()

    def shutdown(self) -> None:
        """Ends the connection after its last reply. A request that is on its way still gets one."""
        if self._answering:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(self._limits.last_request_seconds, self._close_if_idle)

    def close_after_reply(self) -> None:
        """Closes the connection, after the rest of the request if that is still arriving.

        The kernel resets a connection that is closed while bytes of the caller are unread, and a caller who still
        sends would lose the reply.
        """
        self._closing = True
        for cycle, _ in self.pipeline:
            cycle.disconnected = cycle.response_complete = True
        self.pipeline.clear()
        if self._broken or (self._in_request and not self._in_headers):
            self._discard_rest()
        else:
            self.close()

    def close(self) -> None:
        """Closes the connection once what is written has been sent, which has its own bound."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def on_header_timeout(self) -> None:
        self._refuse(headers_too_late(self._limits.header_seconds))

    def on_unread_timeout(self) -> None:
        if not self._broken:
            self._connections.ended("unread")
        self.close()

    def on_write_timeout(self) -> None:
        """Aborts the connection unless the caller has taken enough of the reply."""
        if self.transport.get_write_buffer_size() > max(0, self._unsent - self._limits.write_bytes):
            self._connections.ended("write_time")
            self.transport.abort()
        else:
            self._watch_writing()

    @property
    def _answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _parse(self, data: bytes) -> int:
        """Parses and returns the number of bytes that need not be parsed again."""
        self._parsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade()
            return int(upgrade.args[0])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, Refused) else malformed())
        return len(data)

    def _decline_upgrade(self) -> None:
        """Parses the headers again without the offer of another protocol, and with that the body too.

        The parser takes everything after the headers for the other protocol: it would take a body for a request.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(malformed())
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self._parsed_bytes = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._parse(b"\r\n".join([*lines, b"", b""]))

    def _refuse(self, refused: Refused) -> None:
        """Answers what is no request, unless replies to earlier requests are due, and closes the connection."""
        self._broken = True
        if self.transport.is_closing():
            return
        self._connections.ended(refused.reason)
        if self._answering:
            if self.pipeline or not self.cycle.more_body or self.cycle.response_started:
                self.cycle.keep_alive = False  # replies come in order, and this one has no place among them
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(render(refused.error, refused.status))
        self._connections.forget(self)
        self.close_after_reply()

    def _discard_rest(self) -> None:
        """Lets the rest of a request come, within bounds, and tells the caller that nothing more will be answered."""
        if self._unread_left is not None:
            return
        self._unread_left = self._limits.unread_bytes
        self._connections.unread.add(self)
        if self._closing and self.transport.can_write_eof():
            self.transport.write_eof()

    def _end_unread(self) -> None:
        self._unread_left = None
        self._connections.unread.discard(self)
        if self._closing or self._connections.stopping:
            self.close()
        else:
            self._connections.idle.add(self)

    def _close_if_idle(self) -> None:
        if self in self._connections.idle:
            self.close()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._connections.writing.add(self)
