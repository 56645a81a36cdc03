"""Lets in as many requests for scores as there is room for: in pure ASGI, before a byte of the body is read.

A refusal has to cost next to nothing, or a service under several times its load is busy refusing.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from agentprm.errors import Overloaded, RateLimited
from service.access.rate_limits import Rates
from service.http.middleware.asgi import App, Receive, Scope, Send


class Room:
    """``running`` requests are inside, ``limit`` may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Overloaded where there is none."""
        if self.running >= self.limit:
            raise Overloaded(
                f"{self.limit} requests are being answered, which is all that there is room for",
                details={"limit": self.limit},
                retry_after=1,
            )
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


class ConcurrencyLimit:
    """Answers 429 where there is no room, where the queue is full, or where the key has sent all that it may.

    Args:
        paths: of the routes that score; all others pass.
        refuse_if_full: raises Overloaded while no queue takes more.
    """

    def __init__(
        self, app: App, *, paths: Collection[str], room: Room, refuse_if_full: Callable[[], None], rates: Rates
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._room = room
        self._refuse_if_full = refuse_if_full
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        with self._room.place():
            self._refuse_if_full()
            await self._refuse_if_too_many(scope)
            await self._app(scope, receive, send)

    async def _refuse_if_too_many(self, scope: Scope) -> None:
        """Last, so that only a request that is let in counts."""
        rate = scope["state"].get("rate")
        if rate and (wait := await self._rates.wait(scope["state"]["key"], rate)):
            raise RateLimited(
                f"this key may send {rate.requests} requests in {rate.seconds:g} s",
                details={"requests": rate.requests, "seconds": rate.seconds},
                retry_after=wait,
            )
