"""Reads the whole body within its limits, and cancels the request when the client disconnects."""

import asyncio
from collections.abc import Collection

from agentprm.errors import TooLong, TooSlow
from agentprm.wire import JSONSize
from service.http.limits import BODY_SECONDS
from service.http.middleware.asgi import App, Message, Receive, Scope, Send, header
from service.http.middleware.content_encoding import decoder


class BufferedBody:
    """Calls the app once the whole body is there, and cancels it when the client disconnects.

    The app receives the body as one message, decoded. ``arrived`` in the request's state is that moment, in the event
    loop's time. Deadlines count from it.

    Args:
        app: the next layer.
        paths: paths that take a body by POST; no other body is read.
        max_bytes: largest body that is accepted, decoded or not.
        seconds: time within which the body must arrive.

    Raises:
        TooLong: the body is larger than ``max_bytes``, or holds more JSON values than any request needs.
        TooSlow: the body did not arrive in time.
        UnsupportedMediaType: the body has an encoding other than gzip.
        InvalidRequest: the body is not in the encoding that it names.
    """

    def __init__(self, app: App, *, paths: Collection[str], max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._max_bytes = max_bytes
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
        encoding = header(scope, b"content-encoding")
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced[:19]) > self._max_bytes:  # Python refuses to read endless digits
            raise self._too_long()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._receive_all(encoding, receive)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {self._seconds:g} s") from None

    async def _receive_all(self, encoding: bytes, receive: Receive) -> list[bytes] | None:
        """Checks each piece when it comes: a body that is refused in the end must not cost what it holds."""
        body, size = decoder(encoding), JSONSize()
        pieces: list[bytes] = []
        received = decoded = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            data = message.get("body", b"")
            received += len(data)
            for piece in body.decode(data):
                decoded += len(piece)
                if max(received, decoded) > self._max_bytes:
                    raise self._too_long()
                size.add(piece)
                pieces.append(piece)
            if not message.get("more_body", False):
                body.end()
                return pieces

    def _too_long(self) -> TooLong:
        return TooLong(f"the body is over {self._max_bytes} bytes", details={"limit": self._max_bytes})

    async def _run(self, scope: Scope, pieces: list[bytes], receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["arrived"] = asyncio.get_running_loop().time()
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
