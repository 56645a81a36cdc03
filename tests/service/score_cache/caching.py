"""Both tiers over a Redis, with their metrics."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from service.metrics import Metrics
from service.redis_client.breaker import State
from service.redis_client.connections import RedisServer, connect
from service.score_cache.keys import Key
from service.score_cache.memory_tier import MemoryTier
from service.score_cache.redis_tier import RedisTier
from service.score_cache.tiers import TieredCache
from testbed.processes import PATIENCE
from tests.service.echo_app import LONGEST

NAMESPACE = "test"
AMPLE = 20.0
"""Seconds: a budget that only a server that hangs exceeds, however busy the machine is."""
BRIEF = 0.15
"""Seconds: a budget for a server that hangs. A busy machine may miss it, too, so no other answer is due in it."""
SCORES: dict[Key, float] = {b"test:1": 0.1, b"test:2": -7.25, b"test:3": 1 / 3}
KEYS = list(SCORES)


class Cache:
    """Tiers with their metrics."""

    def __init__(self, server: RedisServer, *, items: int, budget: float, ttl: int, pause: float) -> None:
        self.metrics = Metrics()
        metrics = self.metrics.score_cache
        memory = MemoryTier(items, metrics)
        self.redis = RedisTier(server, NAMESPACE, budget=budget, ttl=ttl, observer=metrics, pause=pause)
        metrics.watch_memory_tier(lambda: len(memory))
        metrics.watch_redis_tier(lambda: self.redis.unwritten, lambda: self.redis.states)
        self.tiers = TieredCache(memory, self.redis)
        self.get, self.put = self.tiers.get, self.tiers.put

    def wait_no_longer_than(self, seconds: float) -> None:
        """The budget from now on: ``BRIEF`` while no answer is due, ``AMPLE`` before and afterwards."""
        self.redis._budget = seconds

    async def stored(self) -> None:
        """Returns when nothing waits to be written."""
        await until(lambda: self.redis.unwritten == 0)

    async def well(self) -> None:
        """Returns when both breakers are closed."""
        await until(lambda: self.breakers == {"read": State.CLOSED, "write": State.CLOSED})

    async def heals(self) -> None:
        """Returns once new scores are written and found again."""
        new = {b"test:healed": 42.0}
        self.put(new)
        await self.stored()
        await self.finds(new)

    async def finds(self, scores: dict[Key, float]) -> None:
        """Returns once these scores are found; no other score may be found before."""
        async with asyncio.timeout(PATIENCE):
            while (found := await self.get(list(scores))) != scores:
                assert found.items() <= scores.items()
                await asyncio.sleep(0.002)

    @property
    def breakers(self) -> dict[str, float]:
        return {labels["operation"]: value for labels, value in self._samples("breaker_state")}

    @property
    def errors(self) -> dict[tuple[str, str], float]:
        """Errors counted so far, by operation and kind."""
        return {(labels["operation"], labels["kind"]): n for labels, n in self._samples("errors_total") if n}

    @property
    def lookups(self) -> dict[str, float]:
        """Lookups in the Redis tier, by result."""
        return {labels["result"]: n for labels, n in self._samples("lookups_total") if labels["tier"] == "redis"}

    @property
    def writes(self) -> dict[str, float]:
        return {labels["result"]: n for labels, n in self._samples("writes_total")}

    @property
    def unwritten(self) -> float:
        return next(value for _, value in self._samples("unwritten"))

    def _samples(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        return samples(self.metrics.exposition().decode(), f"agentprm_score_cache_{name}")


def samples(exposition: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of every sample of that name."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", exposition, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="(.*?)"', labels)), float(value)) for labels, value in found]


@asynccontextmanager
async def caching(
    url: str,
    *,
    items: int = 0,
    budget: float = AMPLE,
    ttl: int = 600,
    pause: float = 0.01,
    step: float = AMPLE,
) -> AsyncIterator[Cache]:
    """A started cache without memory, so every lookup goes to Redis. ``step``: time limit of the client's steps."""
    cache = Cache(connect(url, timeout=step), items=items, budget=budget, ttl=ttl, pause=pause)
    async with asyncio.timeout(LONGEST):
        try:
            await cache.tiers.start()
            yield cache
        finally:
            await cache.tiers.close()


async def until(condition: Callable[[], object]) -> None:
    """Polls until the condition is true, for events of other processes and background tasks."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it offers no event
            await asyncio.sleep(0.002)


def tasks_of(name: str) -> set[asyncio.Task[object]]:
    """Unfinished tasks whose coroutine has this qualified name."""
    return {task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == name}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def warned(caplog: pytest.LogCaptureFixture, beginning: str) -> int:
    """Counts the warnings that begin so."""
    return sum(line.startswith(beginning) for line in warnings(caplog))


async def stored(cache: Cache) -> None:
    """Stores ``SCORES`` in Redis."""
    await cache.well()
    cache.put(SCORES)
    await cache.stored()
