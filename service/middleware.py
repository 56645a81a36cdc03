"""What every request meets before a route, in pure ASGI: an id and a clock, the error envelope, a bounded body.

RequestRecord -> ErrorReplies -> Guard (where there are keys) -> Door -> WholeBody -> routes. Where traces are on,
``service.tracing.requests`` is around it all. None of them logs or answers with text from a body.
"""

import asyncio
import json
import logging
import math
import random
import re
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from time import perf_counter
from typing import Any, Final

from agentprm.errors import InternalError, RequestError, TooLong, TooSlow, Unauthorized

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS: Final = 30
"""Until when a body has to be there: who sends none would keep a place for ever."""
CLIENT_LEFT: Final = 499  # nginx's code for a request whose client did not wait for the reply
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestRecord:
    """Gives a request its id, the caller's if it is printable and short, counts the reply and logs one line.

    Args:
        on_request: hears path, status, seconds and model; that is empty where a request reached none.
        routes: whose paths are logged; any other path is a caller's text.
        quiet: those that are asked all day, logged at debug level.
    """

    def __init__(
        self,
        app: App,
        on_request: Callable[[str, int, float, str], None],
        *,
        routes: Collection[str],
        quiet: Collection[str],
    ) -> None:
        self._app = app
        self._on_request = on_request
        self._routes = frozenset(routes)
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        proposed = header(scope, b"x-request-id")
        request_id = proposed if _REQUEST_ID.fullmatch(proposed) else f"{random.getrandbits(128):032x}".encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started = perf_counter()
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = perf_counter() - started
            self._on_request(scope["path"], status, seconds, scope["state"].get("model", ""))
            self._log(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        path, state = scope["path"], scope["state"]
        fields = {
            "id": state["request_id"],
            "route": path if path in self._routes else "other",
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
            **{name: state[name] for name in ("key", "model", "trace_id") if name in state},
            **state.get("scored", {}),
        }
        logger.log(logging.DEBUG if path in self._quiet else logging.INFO, "request", extra={"fields": fields})


class ErrorReplies:
    """Answers every exception with the one envelope; one that nobody raised on purpose becomes InternalError."""

    def __init__(self, app: App, on_error: Callable[[RequestError], None]) -> None:
        self._app = app
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            answer = error if isinstance(error, RequestError) else _unexpected(error, scope["state"]["request_id"])
            scope["state"]["error"] = answer.code
            self._on_error(answer)
            await _send_error(answer, send)


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


async def _send_error(error: RequestError, send: Send) -> None:
    body = json.dumps(error.envelope()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if isinstance(error, TooSlow):
        headers.append((b"connection", b"close"))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if allow := error.details.get("allow"):
        headers.append((b"allow", allow.encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _unexpected(error: Exception, request_id: str) -> InternalError:
    # The frames, but not str(error): an exception's message may quote an agent's text.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s: %s. This is a bug\n%s", request_id, type(error).__name__, frames)
    return InternalError("the service failed; its log tells more under this id", details={"id": request_id})


def header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
