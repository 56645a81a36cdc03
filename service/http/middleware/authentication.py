"""API keys, checked before the body is read."""

from collections.abc import Collection
from typing import Final

from agentprm.errors import Forbidden, Unauthorized
from service.access.api_keys import ApiKey, ApiKeys
from service.http.middleware.asgi import App, Receive, Scope, Send, header

_BEARER: Final = b"bearer "


class Authentication:
    """Requires an API key in ``Authorization: Bearer`` (RFC 6750), and puts its name and rate into the request's state.

    Args:
        app: the next layer.
        keys: the keys that are accepted.
        open_paths: paths that need no key.
        admin: prefix of the paths that need the scope ``admin``.
        record: path that needs the scope ``record``; all others need ``score``.

    Raises:
        Unauthorized: the request has no key, or an unknown one.
        Forbidden: the key lacks the scope that the path needs.
    """

    def __init__(self, app: App, keys: ApiKeys, open_paths: Collection[str], *, admin: str, record: str) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset(open_paths)
        self._admin = f"{admin}/"
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._open:
            key = self._key(scope)
            scope["state"] |= {"key": key.name, "rate": key.rate}
            needed = self._needed(scope["path"])
            if needed not in key.scopes:
                raise Forbidden(f"this API key has no scope {needed}")
        await self._app(scope, receive, send)

    def _needed(self, path: str) -> str:
        if path.startswith(self._admin):
            return "admin"
        return "record" if path == self._record else "score"

    def _key(self, scope: Scope) -> ApiKey:
        given = header(scope, b"authorization")
        if given[: len(_BEARER)].lower() != _BEARER:
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
        key = self._keys.find(given[len(_BEARER) :].decode("latin-1").strip())
        if key is None:
            raise Unauthorized("this API key is not known here")
        return key
