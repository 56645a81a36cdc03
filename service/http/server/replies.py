"""Replies that are written before the application sees a request, in the error envelope of the wire format."""

import json
import math

from agentprm.errors import RequestError


def render(error: RequestError, status: str) -> bytes:
    """Returns a whole HTTP reply that ends its connection. ``status`` is such as "503 Service Unavailable"."""
    body = json.dumps(error.envelope())
    headers: dict[str, object] = {
        "content-type": "application/json",
        "content-length": len(body),
        "connection": "close",
    }
    if error.retry_after is not None:
        headers["retry-after"] = max(1, math.ceil(error.retry_after))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", body]).encode()
