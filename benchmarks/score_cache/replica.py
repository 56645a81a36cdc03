"""Work that a shared score cache saves a new replica: recorded TextCraft searches, ranked step by step over HTTP.

first    answers the traffic with an empty Redis
joined   a new process with the Redis and the namespace that ``first`` has filled
alone    a new process with a namespace of its own
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from benchmarks.engine.speed import TOLERANCE
from benchmarks.harness.clients import send
from benchmarks.harness.timing import largest_difference, ratios
from benchmarks.workloads.requests import NAME, Load, publish
from model_store.format.store import Store
from service.settings import CHECKPOINTS
from testbed.processes import Server, serve_agentprm, wait_until
from testbed.redis import serve_redis

logger = logging.getLogger(__name__)

DEMO: Final = "demo"
SOURCES: Final = ("computed", "prefix_cache", "score_cache")
WRITE_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Replay:
    """Outcome of the traffic on one server: raw scores, CPU seconds, and tokens by source."""

    raw: list[list[float]]
    cpu_seconds: float
    tokens: dict[str, float]


def replica(redis_program: Path, model: str, load: Load, replicas: int) -> dict[str, Any]:
    """Replays the traffic on ``first``, then on ``replicas`` pairs of ``joined`` and ``alone`` in alternating order."""
    logger.info("a replica joins: %s, model %s", load.case, model)
    with serve_redis(redis_program) as redis, _store(model) as (root, name):
        replay = partial(_replay, root, name, load, redis.url)
        first = replay("shared")
        replays: dict[str, list[Replay]] = {"joined": [], "alone": []}
        for number in range(replicas):
            turns = [("joined", "shared"), ("alone", f"alone-{number}")]
            for who, namespace in reversed(turns) if number % 2 else turns:
                replays[who].append(replay(namespace))
    return {"model": model, "case": load.case, "scores": load.items, **_result(first, **replays)}


def wait_until_written(server: Server) -> None:
    """Waits until Redis holds all computed scores; they are written after the reply."""
    wait_until(lambda: server.metric("agentprm_score_cache_unwritten") == 0, "scores were not written", WRITE_SECONDS)


def _replay(root: Path, model: str, load: Load, redis_url: str, namespace: str) -> Replay:
    settings = {"AGENTPRM_REDIS_URL": redis_url, "AGENTPRM_SCORE_CACHE_NAMESPACE": namespace}
    with serve_agentprm(root, model, settings) as server:
        before = tokens_by_source(server)
        outcome = send(server, load, 1)
        wait_until_written(server)
        after = tokens_by_source(server)
    return Replay(outcome["raw"], outcome["cpu_seconds"], {source: after[source] - before[source] for source in after})


def tokens_by_source(server: Server) -> dict[str, float]:
    """Returns how many tokens were computed, and how many each cache saved."""
    return {source: server.metric("agentprm_tokens_total", source=source) for source in SOURCES}


def _result(first: Replay, joined: list[Replay], alone: list[Replay]) -> dict[str, Any]:
    by_replica = {"first": [first], "joined": joined, "alone": alone}
    shares = [
        with_cache.tokens["computed"] / without.tokens["computed"]
        for with_cache, without in zip(joined, alone, strict=True)
    ]
    differ = max(largest_difference(replay.raw, first.raw) for replay in (*joined, *alone))
    costs = {who: [replay.cpu_seconds for replay in replays] for who, replays in by_replica.items()}
    return {
        "tokens": {who: [replay.tokens for replay in replays] for who, replays in by_replica.items()},
        "cpu_seconds": costs,
        "computed_share": max(shares),
        "alone_over_joined": ratios(costs["alone"], costs["joined"])._asdict(),
        "max_diff": differ,
        "equal": differ <= TOLERANCE,
    }


@contextmanager
def _store(model: str) -> Iterator[tuple[Path, str]]:
    """Yields a store and the name of a checkpoint that reads TextCraft: the bundled one, or a random tiny one."""
    if model == DEMO:
        yield CHECKPOINTS, DEMO
        return
    words = Tokenizer.from_file(str(Store(CHECKPOINTS).resolve(DEMO).path / "tokenizer.json"))
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as directory:
        publish(Path(directory), tokenizer=words)
        yield Path(directory), NAME
