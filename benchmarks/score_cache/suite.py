"""The four benchmarks of the score cache over HTTP.

replica   a new replica with a Redis that others have filled
repeat    a ranking the first time and again, by where its scores are cached
hits      throughput beside a plain FastAPI app
hang      latency while Redis does not answer

Every server is a process; a cost is its CPU seconds, without those of the client and of Redis.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.score_cache.hang import HangSizes, hang
from benchmarks.score_cache.hits import HitSizes, hits
from benchmarks.score_cache.repeat import RepeatSizes, repeat
from benchmarks.score_cache.replica import DEMO, replica
from benchmarks.workloads.textcraft import textcraft_load
from testbed.redis import redis_version


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of all four; ``replicas`` is the number of pairs of replicas."""

    replica_models: tuple[str, ...]
    episodes: int
    replicas: int
    repeat: RepeatSizes
    hits: HitSizes
    hang: HangSizes


FULL: Final = Sizes(
    replica_models=(DEMO, "tiny"),
    episodes=24,
    replicas=3,
    repeat=RepeatSizes("small", history=1024, candidates=16, rankings=4, times=50),
    hits=HitSizes(((256, 8), (1024, 16)), requests=5000),
    hang=HangSizes(times=10, rankings=50),
)
QUICK: Final = Sizes(
    replica_models=(DEMO,),
    episodes=8,
    replicas=1,
    repeat=RepeatSizes("tiny", history=256, candidates=4, rankings=2, times=50),
    hits=HitSizes(((256, 4),), requests=1000),
    hang=HangSizes(times=2, rankings=20),
)


def bench_cache(redis_program: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Runs all four and returns their results as a JSON object."""
    traffic = textcraft_load(sizes.episodes)
    return {
        "redis": redis_version(redis_program),
        "replica": [replica(redis_program, model, traffic, sizes.replicas) for model in sizes.replica_models],
        "repeat": repeat(redis_program, sizes.repeat, rounds),
        "hits": hits(sizes.hits, rounds),
        "hang": hang(redis_program, sizes.hang),
    }


def differing(document: dict[str, Any]) -> list[str]:
    """Returns the cases in which a cached score differs from the computed one."""
    results = (*document["replica"], document["repeat"], *document["hits"])
    return [result["case"] for result in results if not result["equal"]]
