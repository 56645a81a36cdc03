"""Routes with a JSON body, which pydantic reads straight from its bytes."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from agentprm import wire
from service.http.limits import SMALL_BODY
from service.http.middleware.asgi import App, Receive, Scope, Send, find_header, header
from service.http.state import route_state

JSON: Final = b"application/json"

B = TypeVar("B", bound=wire.Body)


class BodyRoutes:
    """Answers requests with a body; all others go to the next layer, which is FastAPI's router.

    FastAPI documents these routes and does no more: finding a route, solving dependencies and validating Python objects
    made of the whole body are a quarter of the cost of a known score. ``BufferedBody`` must surround this layer.

    Args:
        app: the next layer.
        routes: path -> route, as ``body_routes`` finds them.
    """

    def __init__(self, app: App, *, routes: Mapping[str, "BodyRoute"]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        response = await route.answer(Request(scope, receive))
        await response(scope, receive, send)


class BodyRoute:
    """One declared route: its endpoint takes the request, ``body`` and headers, and returns a response."""

    def __init__(self, declared: APIRoute) -> None:
        assert declared.body_field is not None
        self._endpoint = declared.endpoint
        self._body: type[wire.Body] = declared.body_field.field_info.annotation  # type: ignore[assignment]
        self._headers = [(field.alias.encode(), field) for field in declared.dependant.header_params]

    async def answer(self, request: Request) -> Response:
        """Returns the endpoint's response. Raises InvalidRequest for a wrong header or body."""
        arguments = self._header_values(request.scope)
        _refuse_other_types(request.scope)
        body = await _decoded(self._body, request)
        response: Response = await self._endpoint(request, body=body, **arguments)
        return response

    def _header_values(self, scope: Scope) -> dict[str, Any]:
        """Returns the arguments that headers set; those of absent headers keep their defaults."""
        values = {}
        for name, field in self._headers:
            given = find_header(scope, name)
            if given is not None:
                value, errors = field.validate(given.decode("latin-1"), loc=("header", field.alias))
                if errors:
                    raise wire.invalid_request(errors)
                values[field.name] = value
        return values


def body_routes(*routers: APIRouter) -> dict[str, BodyRoute]:
    """Returns the routes with a body that the routers declare, by path."""
    declared = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return {route.path: BodyRoute(route) for route in declared if route.body_field is not None}


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
