"""Rate limits of API keys: one token bucket per key, in this process or shared by replicas through Redis.

A bucket is one number, the time at which it will be full again (the virtual scheduling form of GCRA, ITU-T I.371).
Every request moves that time on by the time in which one token comes back.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple, Protocol

from service.redis_client.breaker import CircuitBreaker
from service.redis_client.connections import RedisServer, safe_message

PERIODS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)")
MAX_CONCURRENT_CALLS: Final = 16
"""Concurrent Redis calls; further callers wait here, not for a connection."""
_CONNECT_SECONDS: Final = 1.0


class Rate(NamedTuple):
    """A burst of ``requests``, and as many again in every ``seconds``."""

    requests: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds in which one token comes back."""
        return self.seconds / self.requests


class RateLimiter(Protocol):
    async def take(self, name: str, rate: Rate) -> float:
        """Takes a token from the bucket of ``name``. Returns 0, or the seconds until there will be one."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def parse_rate(text: str) -> Rate:
    """Reads ``20/s``, ``600/min`` or ``5000/h``. Raises ValueError for any other form."""
    if not (found := _RATE.fullmatch(text)):
        raise ValueError("a rate is a number of requests per s, min or h, as in 600/min")
    return Rate(int(found[1]), PERIODS[found[2]])


class LocalRateLimiter:
    """Buckets of this process alone. They are never removed, since there are only as many as keys."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._full_at: defaultdict[str, float] = defaultdict(float)

    async def take(self, name: str, rate: Rate) -> float:
        now = self._clock()
        # At most ``rate.seconds`` ahead: after a change of the rate the stored time may be that of a slower bucket.
        full_at = min(max(self._full_at[name], now), now + rate.seconds) + rate.interval
        wait = full_at - now - rate.seconds
        if wait <= 1e-9 * rate.seconds:  # rounding errors of the sums
            self._full_at[name] = full_at
            return 0.0
        return wait

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class RedisRateLimiter:
    """Buckets in Redis, by the clock of Redis. While Redis does not answer in time, each replica counts for itself.

    Args:
        server: a client for this limiter alone, closed with it.
        namespace: beginning of the keys.
        budget: seconds that a request waits for Redis.
    """

    def __init__(self, server: RedisServer, namespace: str, *, budget: float) -> None:
        self._server = server
        self._prefix = f"{namespace}-rates:"  # not "{namespace}:", whose keys are counted as scores
        self._budget = budget
        self._local = LocalRateLimiter()
        self._call_slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._breaker = CircuitBreaker("rate limits in Redis", self._probe)

    async def take(self, name: str, rate: Rate) -> float:
        if self._breaker.is_closed:
            # A wait for a slot is no failure of Redis, so the breaker does not count it.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._budget):
                    await self._call_slots.acquire()
                try:
                    wait = await self._take_from_redis(name, rate)
                finally:
                    self._call_slots.release()
                if wait is not None:
                    return wait
        return await self._local.take(name, rate)

    async def _take_from_redis(self, name: str, rate: Rate) -> float | None:
        """Returns as ``take`` does; None if Redis failed."""
        # Any error that a failing server makes the client raise. The breaker counts it, and logs once.
        with suppress(Exception):
            wait = await self._server.take_token(self._prefix + name, rate.interval, rate.seconds, within=self._budget)
            self._breaker.record_success()
            return wait
        self._breaker.record_failure()
        return None

    async def start(self) -> None:
        await self._breaker.start(_CONNECT_SECONDS)

    async def close(self) -> None:
        await self._breaker.stop()
        await self._server.close()

    async def _probe(self) -> None:
        name = "/probe"  # no API key can have this name
        try:
            await self._server.take_token(self._prefix + name, 1.0, 60.0, within=_CONNECT_SECONDS)
        except Exception as error:  # the breaker logs the message, and some servers repeat the password
            raise RuntimeError(safe_message(error)) from error
