"""Limits requests for scores or with outcomes before the body is read: those in flight, the queue, each key's rate.

A refusal must cost next to nothing, or a service under several times its load spends its time on refusals.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from agentprm.errors import Overloaded, RateLimited
from service.access.rate_limits import RateLimiter
from service.http.limits import HELD_SECONDS, REFUSAL_SECONDS
from service.http.middleware.asgi import App, Receive, Scope, Send, header
from service.queue.fair_queue import Priority
from service.queue.shares import may_take_place

_PRIORITIES: Final = {priority.encode(): priority for priority in Priority}


class InFlightRequests:
    """Counts the requests in flight: ``running`` now, at most ``limit``, of which one caller leaves some to others."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._held: Counter[str] = Counter()

    @contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """Holds a slot for the length of the block. Raises Overloaded if the caller may take none of the free ones."""
        held = self._held[caller]
        if not may_take_place(held, self.limit - self.running):
            raise Overloaded(
                f"{self.running} requests are being answered, {held} of them are yours; {self.limit} may",
                details={"running": self.running, "limit": self.limit, "held": held},
                retry_after=1,
            )
        self._take(caller, 1)
        try:
            yield
        finally:
            self._take(caller, -1)

    def _take(self, caller: str, slots: int) -> None:
        self.running += slots
        self._held[caller] += slots
        if not self._held[caller]:
            del self._held[caller]


class RefusalPace:
    """Holds refusals back, so that a caller that retries at once gets few of them a second on all its connections.

    A refusal is cheap. Thousands a second would still keep the event loop busy, and so the requests of others waiting.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    async def wait(self, caller: str, since: float) -> float:
        """Waits for the caller's turn to be refused, at most ``HELD_SECONDS`` however many of its refusals wait.

        A request that was read, tokenised and only then refused has cost more than one refused at the door. So each
        refusal takes up at least as long a turn as it took from ``since``, by the event loop's clock, to come about.

        Returns the seconds that it waited. They are no part of the request's duration in metrics and logs.
        """
        time = asyncio.get_running_loop().time
        now = time()
        seconds = max(REFUSAL_SECONDS, now - since)
        turn = min(max(now, self._last.get(caller, now)) + seconds, now + HELD_SECONDS)
        self._last[caller] = turn
        try:
            await asyncio.sleep(turn - now)
        finally:
            if self._last.get(caller) == turn:
                del self._last[caller]
        return time() - now


class ConcurrencyLimit:
    """Refuses a request for scores or with an outcome: too many in flight, the queue is full, the key is over its rate.

    Puts the caller's name into the request's state.

    Args:
        app: the next layer.
        priorities: the limited paths, each with the priority of a request that names none; None: it waits in no queue.
            Other paths pass.
        in_flight: counts the requests that passed.
        refuse_if_full: raises Overloaded while no queue accepts work of this caller at this priority.
        rate_limiter: the rates of the API keys.

    Raises:
        Overloaded: too many requests are in flight for this caller, or every queue is full for it.
        RateLimited: the key has sent all that its rate allows; ``retry_after`` is the wait for the next.
    """

    def __init__(
        self,
        app: App,
        *,
        priorities: Mapping[str, Priority | None],
        in_flight: InFlightRequests,
        refuse_if_full: Callable[[str, Priority], None],
        rate_limiter: RateLimiter,
    ) -> None:
        self._app = app
        self._priorities = priorities
        self._in_flight = in_flight
        self._refuse_if_full = refuse_if_full
        self._rate_limiter = rate_limiter
        self._pace = RefusalPace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._priorities:
            await self._app(scope, receive, send)
            return
        scope["state"]["caller"] = caller = caller_of(scope)
        since = asyncio.get_running_loop().time()
        try:
            with self._in_flight.slot(caller):
                if (priority := self._priorities[scope["path"]]) is not None:
                    self._refuse_if_full(caller, priority_of(scope, priority))
                await self._take_from_rate(scope)
                await self._app(scope, receive, send)
                return
        except Overloaded as error:
            refusal = error.with_traceback(None)  # its frames would keep the body while the refusal is held back
        scope["state"]["held_back"] = await self._pace.wait(caller, since)
        raise refusal

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


def priority_of(scope: Scope, default: Priority) -> Priority:
    """Returns the priority that the header names, else ``default``. The route refuses a header with a wrong one."""
    return _PRIORITIES.get(header(scope, b"x-priority"), default)
