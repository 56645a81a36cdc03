"""How many requests a key may send: a token bucket for each, in this process or shared by replicas through Redis.

A bucket is one number, the time at which it will be full again (the virtual scheduling form of GCRA, ITU-T I.371):
every request moves it on by the time that one token needs to come back.
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
AT_ONCE: Final = 16
"""Round trips; a crowd takes turns, so that it is never the connections that run out."""
_CONNECT_SECONDS: Final = 1.0


class Rate(NamedTuple):
    """``requests`` at once, and as many again in every ``seconds``."""

    requests: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds until one request more may come."""
        return self.seconds / self.requests


class Rates(Protocol):
    async def wait(self, name: str, rate: Rate) -> float:
        """Takes a token out of a bucket; 0, or in how many seconds there will be one."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def parse_rate(text: str) -> Rate:
    """``20/s``, ``600/min`` or ``5000/h``.

    Raises:
        ValueError: another form.
    """
    if not (found := _RATE.fullmatch(text)):
        raise ValueError("a rate is a number of requests per s, min or h, as in 600/min")
    return Rate(int(found[1]), PERIODS[found[2]])


class LocalRates:
    """Buckets of this process alone. Needs no cleaning up: there are as many as keys."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._full_at: defaultdict[str, float] = defaultdict(float)

    async def wait(self, name: str, rate: Rate) -> float:
        now = self._clock()
        # No longer ago than this bucket takes to fill: it may have been another rate's.
        full_at = min(max(self._full_at[name], now), now + rate.seconds) + rate.interval
        wait = full_at - now - rate.seconds
        if wait <= 1e-9 * rate.seconds:  # what is left of adding up fractions
            self._full_at[name] = full_at
            return 0.0
        return wait

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class SharedRates:
    """Buckets in Redis, by its clock. While it does not answer in time every replica counts for itself.

    Args:
        server: a client of its own, which is closed with this.
        budget: seconds that a request waits for Redis.
    """

    def __init__(self, server: RedisServer, namespace: str, *, budget: float) -> None:
        self._server = server
        self._prefix = f"{namespace}-rates:"  # scores begin with "{namespace}:", and are counted
        self._budget = budget
        self._alone = LocalRates()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._breaker = CircuitBreaker("rate limits in Redis", self._probe)

    async def wait(self, name: str, rate: Rate) -> float:
        if self._breaker.is_closed:
            with suppress(TimeoutError):  # too many before it is no fault of the server's
                async with asyncio.timeout(self._budget):
                    await self._places.acquire()
                try:
                    wait = await self._shared_wait(name, rate)
                finally:
                    self._places.release()
                if wait is not None:
                    return wait
        return await self._alone.wait(name, rate)

    async def _shared_wait(self, name: str, rate: Rate) -> float | None:
        # Whatever a sick server makes the client raise: the breaker counts it and says so once.
        with suppress(Exception):
            wait = await self._server.take(self._prefix + name, rate.interval, rate.seconds, within=self._budget)
            self._breaker.succeeded()
            return wait
        self._breaker.failed()
        return None

    async def start(self) -> None:
        await self._breaker.start(_CONNECT_SECONDS)

    async def close(self) -> None:
        await self._breaker.stop()
        await self._server.close()

    async def _probe(self) -> None:
        name = "/probe"  # no key has it
        try:
            await self._server.take(self._prefix + name, 1.0, 60.0, within=_CONNECT_SECONDS)
        except Exception as error:  # the breaker logs it, and a server may repeat the password
            raise RuntimeError(safe_message(error)) from error
