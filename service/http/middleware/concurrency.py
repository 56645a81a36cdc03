"""Limits requests for scores, before the body is read: requests in flight, the queue, and the rate of each API key.

A refusal must cost next to nothing, or a service under several times its load spends its time on refusals.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from agentprm.errors import Overloaded, RateLimited
from service.access.rate_limits import RateLimiter
from service.http.middleware.asgi import App, Receive, Scope, Send


class InFlightRequests:
    """Counts the requests in flight: ``running`` now, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds a slot for the length of the block. Raises Overloaded if all are taken."""
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
    """Refuses a request for scores while too many are in flight, the queue is full, or its key is over its rate.

    Puts the caller's name into the request's state.

    Args:
        app: the next layer.
        paths: paths of the routes that score; all others pass.
        in_flight: counts the requests that passed.
        refuse_if_full: raises Overloaded while no queue accepts work.
        rate_limiter: the rates of the API keys.

    Raises:
        Overloaded: there are ``in_flight.limit`` requests, or every queue is full.
        RateLimited: the key has sent all that its rate allows; ``retry_after`` is the wait for the next.
    """

    def __init__(
        self,
        app: App,
        *,
        paths: Collection[str],
        in_flight: InFlightRequests,
        refuse_if_full: Callable[[], None],
        rate_limiter: RateLimiter,
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._in_flight = in_flight
        self._refuse_if_full = refuse_if_full
        self._rate_limiter = rate_limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        scope["state"]["caller"] = caller_of(scope)
        with self._in_flight.slot():
            self._refuse_if_full()
            await self._take_from_rate(scope)
            await self._app(scope, receive, send)

    async def _take_from_rate(self, scope: Scope) -> None:
        """Counts the request against its key's rate. Comes last, so that a request refused above does not count."""
        rate = scope["state"].get("rate")
        if rate and (wait := await self._rate_limiter.take(scope["state"]["key"], rate)):
            raise RateLimited(
                f"this key may send {rate.requests} requests in {rate.seconds:g} s",
                details={"requests": rate.requests, "seconds": rate.seconds},
                retry_after=wait,
            )


def caller_of(scope: Scope) -> str:
    """Returns the name of the request's API key; without keys its address. Callers share the service by it."""
    address, _ = scope.get("client") or ("", 0)
    caller: str = scope["state"].get("key", address)
    return caller
