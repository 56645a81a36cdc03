"""Routes with a JSON body, which pydantic reads straight from its bytes."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import Request
from fastapi.routing import APIRoute

from agentprm import wire
from service.http.middleware.asgi import Receive, Scope, Send, header

JSON: Final = b"application/json"


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
        body = wire.decode(self._body, (await receive())["body"])
        response = await self.endpoint(Request(scope, receive), body=body, **arguments)
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


def _refuse_other_types(scope: Scope) -> None:
    """Raises InvalidRequest unless the request's content type is JSON."""
    given = header(scope, b"content-type")
    if given == JSON:
        return
    kind, _, subtype = given.partition(b";")[0].strip().lower().partition(b"/")
    if kind == b"application" and (subtype == b"json" or subtype.endswith(b"+json")):
        return
    what = "is not JSON" if given else "is missing"
    raise wire.invalid_request(
        [
            {
                "loc": ["header", "content-type"],
                "msg": f"it {what}; send content-type: application/json",
                "type": "content_type",
            }
        ]
    )
