"""Types and header access of the middleware, all of it pure ASGI.

The layers, outermost first: RequestRecord, ErrorReplies, Guard (with keys), ConcurrencyLimit, WholeBody, then the
routes. With traces the middleware of ``service.tracing.requests`` surrounds them. None of them logs or answers with
text from a body.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT_LEFT: Final = 499  # nginx's code for a request whose client did not wait for the reply


def header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
