"""Request ids, durations, and one log line for each request."""

import logging
import random
import re
from collections.abc import Callable, Collection
from time import perf_counter
from typing import Final

from service.http.middleware.asgi import CLIENT_LEFT, App, Message, Receive, Scope, Send, header

logger = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestLog:
    """Gives each request an id, measures it, and logs one line.

    The caller's ``x-request-id`` is kept if it is printable ASCII without spaces, at most 128 characters.

    Args:
        app: the next layer.
        on_request: called with path, status, seconds and model; the model is empty if the request reached none.
        routes: paths that are logged; any other path is a caller's text, logged as "other".
        quiet: paths that are polled all day, logged at debug level.
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
            seconds = perf_counter() - started - scope["state"].get("held_back", 0.0)
            self._on_request(scope["path"], status, seconds, scope["state"].get("model", ""))
            self._log(scope, status, seconds)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        path, state = scope["path"], scope["state"]
        level = logging.DEBUG if path in self._quiet else logging.INFO
        if not logger.isEnabledFor(level):
            return
        fields = {
            "id": state["request_id"],
            "route": path if path in self._routes else "other",
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }
        for name in ("key", "model", "trace_id"):
            if name in state:
                fields[name] = state[name]
        fields.update(state.get("scored", ()))
        logger.log(level, "request", extra={"fields": fields})
