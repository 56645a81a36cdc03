"""Cost of a repeated ranking against that of the first time, by where its scores are cached.

Every configuration gets the same rankings, and new ones in each round. ``prefix cache only`` is the service without a
score cache: the prefix cache keeps keys, values, and the scores that were read from them.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.speed import TOLERANCE
from benchmarks.harness.clients import send
from benchmarks.harness.timing import largest_difference, percentiles, ratios
from benchmarks.score_cache.replica import tokens_by_source, wait_until_written
from benchmarks.workloads.models import small_config, tiny_config
from benchmarks.workloads.requests import NAME, Load, publish, rank_load
from testbed.processes import Server, serve_agentprm
from testbed.redis import serve_redis

logger = logging.getLogger(__name__)

CONFIGS: Final = {"tiny": tiny_config, "small": small_config}
NO_MEMORY: Final = {"AGENTPRM_SCORE_CACHE_ITEMS": "0"}


@dataclass(frozen=True, slots=True)
class RepeatSizes:
    """A model of ``CONFIGS``, sizes of a ranking, different rankings a round, and how often each is sent again."""

    model: str
    history: int
    candidates: int
    rankings: int
    times: int

    def load(self, number: int) -> Load:
        return rank_load(self.rankings, self.history, self.candidates, f"repeat {number}")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of the first time and of all repetitions, and the tokens that were computed for the repetitions."""

    first: dict[str, Any]
    again: dict[str, Any]
    computed_again: float

    @property
    def max_diff(self) -> float:
        """Largest difference between computed and cached scores."""
        times = len(self.again["raw"]) // len(self.first["raw"])
        return largest_difference(self.again["raw"], self.first["raw"] * times)


def repeat(redis_program: Path, sizes: RepeatSizes, rounds: int) -> dict[str, Any]:
    """Measures the first time and the repetitions with each configuration of the service."""
    case = f"P={sizes.history} N={sizes.candidates}, model {sizes.model}"
    logger.info("repeated rankings: %s", case)
    with _servers(redis_program, sizes.model) as servers:
        for server in servers.values():
            _send(server, rank_load(2, 64, 2, "warm-up"), 2)
        outcomes = [_round(servers, sizes, number) for number in range(rounds)]
    differ = max(outcome.max_diff for by_name in outcomes for outcome in by_name.values())
    return {
        "case": case,
        "rankings_a_round": sizes.rankings,
        "times": sizes.times,
        "configurations": {name: _describe([by_name[name] for by_name in outcomes], sizes) for name in servers},
        "max_diff": differ,
        "equal": differ <= TOLERANCE,
    }


@contextmanager
def _servers(redis_program: Path, model: str) -> Iterator[dict[str, Server]]:
    with ExitStack() as running:
        redis = running.enter_context(serve_redis(redis_program))
        store = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-store-")))
        publish(store, CONFIGS[model]())
        configurations: dict[str, dict[str, str]] = {
            "memory": {},
            "Redis, no memory": {**NO_MEMORY, "AGENTPRM_REDIS_URL": redis.url},
            "prefix cache only": NO_MEMORY,
        }
        yield {
            name: running.enter_context(serve_agentprm(store, NAME, settings))
            for name, settings in configurations.items()
        }


def _round(servers: dict[str, Server], sizes: RepeatSizes, number: int) -> dict[str, Outcomes]:
    load, names = sizes.load(number), list(servers)
    start = number % len(names)
    return {name: _send(servers[name], load, sizes.times) for name in (*names[start:], *names[:start])}


def _send(server: Server, load: Load, times: int) -> Outcomes:
    first = send(server, load, 1)
    wait_until_written(server)
    before = tokens_by_source(server)["computed"]
    again = send(server, replace(load, bodies=load.bodies * times), 1)
    return Outcomes(first, again, tokens_by_source(server)["computed"] - before)


def _describe(outcomes: list[Outcomes], sizes: RepeatSizes) -> dict[str, Any]:
    first = [1000 * outcome.first["cpu_seconds"] / sizes.rankings for outcome in outcomes]
    again = [1000 * outcome.again["cpu_seconds"] / sizes.rankings / sizes.times for outcome in outcomes]
    return {
        "first_cpu_ms_by_round": first,
        "again_cpu_ms_by_round": again,
        "first_over_again": ratios(first, again)._asdict(),
        "first_wall_ms": percentiles([latency for outcome in outcomes for latency in outcome.first["latency_ms"]]),
        "again_wall_ms": percentiles([latency for outcome in outcomes for latency in outcome.again["latency_ms"]]),
        "computed_again": sum(outcome.computed_again for outcome in outcomes),
    }
