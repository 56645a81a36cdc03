"""Turns every exception into the error envelope of the wire format."""

import json
import logging
import math
import traceback
from collections.abc import Callable

from agentprm.errors import InternalError, RequestError, TooSlow, Unauthorized
from service.http.middleware.asgi import App, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class ErrorReplies:
    """Answers an exception with the error envelope; one that is no RequestError becomes InternalError.

    Args:
        app: the next layer.
        on_error: called with each error that is answered.
    """

    def __init__(self, app: App, on_error: Callable[[RequestError], None]) -> None:
        self._app = app
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            reply = error if isinstance(error, RequestError) else _unexpected(error, scope["state"]["request_id"])
            scope["state"]["error"] = reply.code
            self._on_error(reply)
            await _send_error(reply, send)


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
    # Only the frames: an exception's message may quote an agent's text.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s: %s. This is a bug\n%s", request_id, type(error).__name__, frames)
    return InternalError("the service failed; its log tells more under this id", details={"id": request_id})
