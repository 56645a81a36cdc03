"""Latency while Redis hangs: its connections stay open and nothing is answered.

One caller sends short rankings that no server has seen, in four phases that are repeated: with Redis well, from the
moment it is stopped until the breaker opens, with the breaker open, and with Redis well after the breaker has closed.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import httpx

from benchmarks.harness.timing import percentiles
from benchmarks.workloads.models import judge_config
from benchmarks.workloads.requests import NAME, Body, publish, rank_load
from service.settings import Settings
from testbed.processes import Server, serve_agentprm, wait_until
from testbed.redis import RedisServer, serve_redis

logger = logging.getLogger(__name__)

HISTORY: Final = 64
CANDIDATES: Final = 4
WARM_UP: Final = 20
FEW: Final = 20
"""More requests than a breaker needs to open."""
RECOVERY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class HangSizes:
    """Number of times that Redis hangs, and of rankings before, meanwhile and after."""

    times: int
    rankings: int


@dataclass(slots=True)
class Phase:
    """Latencies of one phase, and the numbers of scores that were and were not looked up in Redis."""

    name: str
    ms: list[float] = field(default_factory=list)
    looked_up: float = 0.0
    skipped: float = 0.0

    def as_json(self) -> dict[str, Any]:
        asked_share = self.looked_up / (self.looked_up + self.skipped)
        return {"phase": self.name, "wall_ms": percentiles(self.ms), "redis_asked": asked_share}


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller, who reads the server's metrics too."""

    server: Server
    client: httpx.Client

    def send(self, bodies: Sequence[Body], phase: Phase, done: Callable[[], bool] = lambda: False) -> int:
        """Sends these requests, or as many as it takes until ``done()``; returns how many were sent."""
        before = self._lookups()
        latencies = list(self._latencies(bodies, done))
        looked_up, skipped = (now - then for now, then in zip(self._lookups(), before, strict=True))
        phase.ms += latencies
        phase.looked_up += looked_up
        phase.skipped += skipped
        return len(latencies)

    def does_not_read(self) -> bool:
        return self._breaker("read") != 0

    def reads_and_writes(self) -> bool:
        return self._breaker("read") == self._breaker("write") == 0

    def _latencies(self, bodies: Sequence[Body], done: Callable[[], bool]) -> Iterator[float]:
        for body in bodies:
            started = perf_counter()
            self.client.post("/rank_actions", json=body).raise_for_status()
            yield 1000 * (perf_counter() - started)
            if done():
                return

    def _breaker(self, operation: str) -> float:
        return self.server.metric("agentprm_score_cache_breaker_state", operation=operation)

    def _lookups(self) -> tuple[float, float]:
        name = "agentprm_score_cache_lookups_total"
        hit, miss, skipped = (
            self.server.metric(name, tier="redis", result=result) for result in ("hit", "miss", "skipped")
        )
        return hit + miss, skipped


def hang(redis_program: Path, sizes: HangSizes) -> dict[str, Any]:
    """Measures the latency of rankings in each phase."""
    logger.info("latency while Redis hangs: %d times, %d rankings a phase", sizes.times, sizes.rankings)
    with ExitStack() as running:
        redis = running.enter_context(serve_redis(redis_program))
        store = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-store-")))
        publish(store, judge_config())
        # The log would only repeat that Redis hangs.
        settings = {"AGENTPRM_REDIS_URL": redis.url, "AGENTPRM_LOG_LEVEL": "error"}
        server = running.enter_context(serve_agentprm(store, NAME, settings))
        caller = Caller(server, running.enter_context(httpx.Client(base_url=server.url, timeout=60)))
        return _measure(caller, redis, sizes)


def _measure(caller: Caller, redis: RedisServer, sizes: HangSizes) -> dict[str, Any]:
    count = WARM_UP + sizes.times * (FEW + 3 * sizes.rankings)
    bodies = iter(rank_load(count, HISTORY, CANDIDATES, "hang").bodies)
    names = ("Redis well", "it hangs, until the breaker opens", "it hangs, breaker open", "well again, breaker closed")
    phases = well, unnoticed, opened, again = [Phase(name) for name in names]
    caller.send(list(islice(bodies, WARM_UP)), Phase("warm-up"))
    until_open, recovered = [], []
    for _ in range(sizes.times):
        caller.send(list(islice(bodies, sizes.rankings)), well)
        with redis.hanging():
            until_open.append(caller.send(list(islice(bodies, FEW)), unnoticed, caller.does_not_read))
            caller.send(list(islice(bodies, sizes.rankings)), opened)
        recovered.append(wait_until(caller.reads_and_writes, "the breakers did not close", RECOVERY_SECONDS))
        caller.send(list(islice(bodies, sizes.rankings)), again)
    usual = median(well.ms)
    return {
        "case": f"P={HISTORY} N={CANDIDATES}, one caller, {sizes.times} times",
        "budget_ms": Settings.model_fields["redis_timeout_ms"].default,
        "phases": [phase.as_json() for phase in phases],
        "requests_until_open": until_open,
        "added_until_open_ms": [latency - usual for latency in unnoticed.ms],
        "seconds_until_closed": recovered,
    }
