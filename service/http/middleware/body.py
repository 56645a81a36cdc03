"""Reads the whole body within its limits, and cancels the request when the client disconnects."""

import asyncio
from collections.abc import Collection

from agentprm.errors import TooLong, TooSlow
from agentprm.wire import JSONSize
from service.http.limits import BODY_SECONDS, SMALL_BODY
from service.http.loop_turns import LoopTurns
from service.http.middleware.asgi import App, Message, Receive, Scope, Send, header
from service.http.middleware.content_encoding import Gunzip, Unchanged, decoder


class BufferedBody:
    """Calls the app once the whole body is there, and cancels it when the client disconnects.

    The app receives the body as one message, decoded. ``arrived`` in the request's state is that moment, in the event
    loop's time. Deadlines count from it. ``body_bytes`` is the length of the decoded body.

    Args:
        app: the next layer.
        paths: paths that take a body by POST; no other body is read.
        max_bytes: largest body that is accepted, decoded or not.
        turns: turns of large bodies.
        seconds: time within which the body must arrive.

    Raises:
        TooLong: the body is larger than ``max_bytes``, or holds more JSON values than any request needs.
        TooSlow: the body did not arrive in time.
        UnsupportedMediaType: the body has an encoding other than gzip.
        InvalidRequest: the body is not in the encoding that it names.
    """

    def __init__(
        self, app: App, *, paths: Collection[str], max_bytes: int, turns: LoopTurns, seconds: float = BODY_SECONDS
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._max_bytes = max_bytes
        self._turns = turns
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        pieces = await self._read(scope, receive)
        if pieces is not None:
            await self._run(scope, pieces, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> list[bytes] | None:
        """Returns the pieces of the body; None if the client disconnects before its end."""
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced[:19]) > self._max_bytes:  # Python refuses to read endless digits
            raise _too_long(self._max_bytes)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._receive_all(scope, receive)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {self._seconds:g} s") from None

    async def _receive_all(self, scope: Scope, receive: Receive) -> list[bytes] | None:
        """Takes each piece when it comes. Those of a large body take turns, because each holds the event loop a bit."""
        body = _Incoming(decoder(header(scope, b"content-encoding")), self._max_bytes)
        caller: str = scope.get("state", {}).get("caller", "")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            data: bytes = message.get("body", b"")
            if body.received + len(data) <= SMALL_BODY:
                body.take(data)
            else:
                async with self._turns.turn(caller):
                    body.take(data)
            if not message.get("more_body", False):
                return body.end()

    async def _run(self, scope: Scope, pieces: list[bytes], receive: Receive, send: Send) -> None:
        arrived = asyncio.get_running_loop().time()
        scope.setdefault("state", {}).update(arrived=arrived, body_bytes=sum(map(len, pieces)))
        task = asyncio.current_task()
        assert task is not None
        unread = True
        disconnected = False

        async def receive_body() -> Message:
            nonlocal unread
            if not unread:
                return await receive()
            unread = False
            body = b"".join(pieces)
            pieces.clear()  # a body that is parsed is not kept while its request waits
            return {"type": "http.request", "body": body, "more_body": False}

        async def cancel_on_disconnect() -> None:
            nonlocal disconnected
            await receive()  # nothing but http.disconnect can follow the body
            disconnected = True
            task.cancel()

        watcher = asyncio.create_task(cancel_on_disconnect())
        try:
            await self._app(scope, receive_body, send)
        except asyncio.CancelledError:
            if not disconnected or task.uncancel():
                raise
        finally:
            watcher.cancel()


class _Incoming:
    """A body that is arriving. Each piece is checked: a body that is refused in the end must not cost what it holds."""

    def __init__(self, encoded: Unchanged | Gunzip, max_bytes: int) -> None:
        self.received = 0
        self._encoded = encoded
        self._max_bytes = max_bytes
        self._decoded = 0
        self._size = JSONSize()
        self._pieces: list[bytes] = []

    def take(self, data: bytes) -> None:
        self.received += len(data)
        for piece in self._encoded.decode(data):
            self._decoded += len(piece)
            if max(self.received, self._decoded) > self._max_bytes:
                raise _too_long(self._max_bytes)
            self._size.add(piece)
            self._pieces.append(piece)

    def end(self) -> list[bytes]:
        """Returns the decoded pieces."""
        self._encoded.end()
        return self._pieces


def _too_long(limit: int) -> TooLong:
    return TooLong(f"the body is over {limit} bytes", details={"limit": limit})
