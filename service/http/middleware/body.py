"""Reads the whole body within its limits, and cancels the request when the client disconnects."""

import asyncio

from agentprm.errors import TooLong, TooSlow
from service.http.limits import BODY_SECONDS
from service.http.middleware.asgi import App, Message, Receive, Scope, Send, header


class BufferedBody:
    """Calls the app once the whole body is there, and cancels it when the client disconnects.

    ``arrived`` in the request's state is that moment, in the event loop's time. Deadlines count from it.

    Args:
        app: the next layer.
        max_bytes: largest body that is accepted.
        seconds: time within which the body must arrive.

    Raises:
        TooLong: the body is larger than ``max_bytes``.
        TooSlow: the body did not arrive in time.
    """

    def __init__(self, app: App, max_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is not None:
            await self._run(scope, body, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Returns the body; None if the client disconnects before its end."""
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced[:19]) > self._max_bytes:  # Python refuses to read endless digits
            raise self._too_long()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._receive_all(receive)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {self._seconds:g} s") from None

    async def _receive_all(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_long()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_long(self) -> TooLong:
        return TooLong(f"the body is over {self._max_bytes} bytes", details={"limit": self._max_bytes})

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["arrived"] = asyncio.get_running_loop().time()
        task = asyncio.current_task()
        assert task is not None
        unread = [body]
        disconnected = False

        async def receive_body() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

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
