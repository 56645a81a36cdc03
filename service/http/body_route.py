"""Routes with a JSON body, which pydantic reads straight from its bytes."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute

from agentprm import wire
from service.http.limits import SMALL_BODY
from service.http.middleware.asgi import Receive, Scope, Send, header
from service.http.state import route_state

JSON: Final = b"application/json"

B = TypeVar("B", bound=wire.Body)


class BodyRoute(APIRoute):
    """A POST route with a body, a plain ASGI application that FastAPI finds and documents.

    FastAPI's own reading makes Python objects of the whole body before it validates it, and describes every error. Its
    dependencies and the rest that this class skips are most of the cost of a known score.

    The endpoint takes the request, ``body`` and headers, and returns a response. ``BufferedBody`` must surround it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._body: type[wire.Body] | None = None if self.body_field is None else self.body_field.field_info.annotation
        self._headers = self.dependant.header_params

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._body is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        arguments = self._header_values(scope)
        _refuse_other_types(scope)
        request = Request(scope, receive)
        body = await _decoded(self._body, request)
        response = await self.endpoint(request, body=body, **arguments)
        await response(scope, receive, send)

    def _header_values(self, scope: Scope) -> dict[str, Any]:
        """Returns the endpoint's arguments that headers set. Raises InvalidRequest for a wrong one."""
        values = {}
        for field in self._headers:
            given = [value for name, value in scope["headers"] if name == field.alias.encode()]
            if given:
                value, errors = field.validate(given[0].decode("latin-1"), loc=("header", field.alias))
                if errors:
                    raise wire.invalid_request(errors)
                values[field.name] = value
        return values


async def _decoded(kind: type[B], request: Request) -> B:
    """Returns the body. Large ones take turns, because decoding one holds the event loop."""
    content: bytes = (await request.receive())["body"]
    if len(content) <= SMALL_BODY:
        return wire.decode(kind, content)
    async with route_state(request).large_bodies.turn(request.scope["state"].get("caller", "")):
        return wire.decode(kind, content)


def _refuse_other_types(scope: Scope) -> None:
    """Raises InvalidRequest unless the request's content type is JSON."""
    given = header(scope, b"content-type")
    if given == JSON:
        return
    kind, _, subtype = given.partition(b";")[0].strip().lower().partition(b"/")
    if kind == b"application" and (subtype == b"json" or subtype.endswith(b"+json")):
        return
    what = "is not JSON" if given else "is missing"
    message = f"it {what}; send application/json"
    raise wire.invalid_request([{"loc": ["header", "content-type"], "msg": message, "type": "content_type"}])
