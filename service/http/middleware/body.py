"""A whole body within its limit, cancelled when the client leaves."""

import asyncio
from typing import Final

from agentprm.errors import TooLong, TooSlow
from service.http.middleware.asgi import App, Message, Receive, Scope, Send, header

BODY_SECONDS: Final = 30
"""Until when a body has to be there: who sends none would keep a place for ever."""


class WholeBody:
    """Hands the app a body that is whole and within the limit, and cancels the app when the client leaves."""

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
        """The body; None if the client left before its end."""
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced[:19]) > self._max_bytes:  # Python refuses to read endless digits
            raise self._too_long()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._received(receive)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {self._seconds:g} s") from None

    async def _received(self, receive: Receive) -> bytes | None:
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
        task = asyncio.current_task()
        assert task is not None
        unread = [body]
        left = False

        async def receive_body() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        async def cancel_when_client_leaves() -> None:
            nonlocal left
            await receive()  # nothing but http.disconnect can follow the body
            left = True
            task.cancel()

        watcher = asyncio.create_task(cancel_when_client_leaves())
        try:
            await self._app(scope, receive_body, send)
        except asyncio.CancelledError:
            if not left or task.uncancel():
                raise
        finally:
            watcher.cancel()
