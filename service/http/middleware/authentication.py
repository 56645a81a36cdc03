"""Lets nobody in without a key, once there are keys: in pure ASGI, before a byte of the body is read."""

from collections.abc import Collection
from typing import Final

from agentprm.errors import Forbidden, Unauthorized
from service.access.api_keys import ApiKey, ApiKeys
from service.http.middleware.asgi import App, Receive, Scope, Send, header

_BEARER: Final = b"bearer "


class Guard:
    """Answers 401 unless the request's ``Authorization: Bearer`` (RFC 6750) is a key; ``open_paths`` need none.

    403 for a key without the scope that its path needs: ``admin`` below the prefix ``admin``, else ``score``.
    """

    def __init__(self, app: App, keys: ApiKeys, open_paths: Collection[str], *, admin: str) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)
        self._admin = f"{admin}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            key = self._key(scope)
            scope["state"] |= {"key": key.name, "rate": key.rate}
            needed = "admin" if scope["path"].startswith(self._admin) else "score"
            if needed not in key.scopes:
                raise Forbidden(f"this API key has no scope {needed}")
        await self._app(scope, receive, send)

    def _key(self, scope: Scope) -> ApiKey:
        given = header(scope, b"authorization")
        if given[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
        key = self._keys.find(given[len(_BEARER) :].decode("latin-1").strip())
        if key is None:
            raise Unauthorized("this API key is not known here")
        return key
