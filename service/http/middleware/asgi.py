"""ASGI types and header access for the middleware.

The layers, outermost first: RequestLog, ErrorReplies, Authentication (only with API keys), ConcurrencyLimit,
BufferedBody, then the routes. With traces, ``service.tracing.requests`` surrounds them all. None of them logs text of a
body or repeats it in a reply.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLIENT_LEFT: Final = 499  # nginx's status for a client that closed the connection before the reply


def header(scope: Scope, name: bytes) -> bytes:
    """Returns the first header of that lower-case name; empty if there is none."""
    return find_header(scope, name) or b""


def find_header(scope: Scope, name: bytes) -> bytes | None:
    """Returns the first header of that lower-case name; None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None
