"""Lets nobody in without a key, once there are keys: in pure ASGI, before a byte of the body is read."""

from collections.abc import Collection
from typing import Final

from agentprm.errors import Unauthorized
from service.api_keys import ApiKeys
from service.middleware import App, Receive, Scope, Send, header

_BEARER: Final = b"bearer "


class Guard:
    """Answers 401 unless the request's ``Authorization: Bearer`` (RFC 6750) is a key; ``open_paths`` need none."""

    def __init__(self, app: App, keys: ApiKeys, open_paths: Collection[str]) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            scope["state"]["key"] = self._name(scope)
        await self._app(scope, receive, send)

    def _name(self, scope: Scope) -> str:
        given = header(scope, b"authorization")
        if given[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
        name = self._keys.name_of(given[len(_BEARER) :].decode("latin-1").strip())
        if name is None:
            raise Unauthorized("this API key is not known here")
        return name
