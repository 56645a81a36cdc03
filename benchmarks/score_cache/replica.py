"""What a replica that joins is spared: recorded TextCraft searches, ranked step by step over HTTP.

first    plays the traffic with an empty Redis
joined   a process of its own, cold, with the Redis and the namespace that ``first`` has filled
alone    likewise cold, with a namespace of its own, so that nothing lies between the two
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
class Played:
    """What a server answered, what that cost it, and where its tokens' scores came from."""

    raw: list[list[float]]
    cpu_seconds: float
    tokens: dict[str, float]


def replica(redis_program: Path, model: str, load: Load, replicas: int) -> dict[str, Any]:
    """One that plays first, then ``replicas`` times one that joins and one alone, each time the other one first."""
    logger.info("a replica joins: %s, model %s", load.case, model)
    with serve_redis(redis_program) as redis, _store(model) as (root, name):
        play = partial(_play, root, name, load, redis.url)
        first = play("shared")
        played: dict[str, list[Played]] = {"joined": [], "alone": []}
        for number in range(replicas):
            turns = [("joined", "shared"), ("alone", f"alone-{number}")]
            for who, namespace in reversed(turns) if number % 2 else turns:
                played[who].append(play(namespace))
    return {"model": model, "case": load.case, "scores": load.items, **_result(first, **played)}


def wait_until_written(server: Server) -> None:
    """Scores are written behind the answers: until all that it has computed lie in Redis."""
    wait_until(lambda: server.metric("agentprm_score_cache_unwritten") == 0, "scores were not written", WRITE_SECONDS)


def _play(root: Path, model: str, load: Load, redis_url: str, namespace: str) -> Played:
    settings = {"AGENTPRM_REDIS_URL": redis_url, "AGENTPRM_SCORE_CACHE_NAMESPACE": namespace}
    with serve_agentprm(root, model, settings) as server:
        before = tokens_by_source(server)
        outcome = send(server, load, 1)
        wait_until_written(server)
        after = tokens_by_source(server)
    return Played(outcome["raw"], outcome["cpu_seconds"], {source: after[source] - before[source] for source in after})


def tokens_by_source(server: Server) -> dict[str, float]:
    return {source: server.metric("agentprm_tokens_total", source=source) for source in SOURCES}


def _result(first: Played, joined: list[Played], alone: list[Played]) -> dict[str, Any]:
    everybody = {"first": [first], "joined": joined, "alone": alone}
    shares = [one.tokens["computed"] / other.tokens["computed"] for one, other in zip(joined, alone, strict=True)]
    differ = max(largest_difference(one.raw, first.raw) for one in (*joined, *alone))
    costs = {who: [one.cpu_seconds for one in played] for who, played in everybody.items()}
    return {
        "tokens": {who: [one.tokens for one in played] for who, played in everybody.items()},
        "cpu_seconds": costs,
        "computed_share": max(shares),
        "alone_over_joined": ratios(costs["alone"], costs["joined"])._asdict(),
        "max_diff": differ,
        "equal": differ <= TOLERANCE,
    }


@contextmanager
def _store(model: str) -> Iterator[tuple[Path, str]]:
    """Where a checkpoint is that reads the words of TextCraft, and its name: the bundled one, or a random tiny one."""
    if model == DEMO:
        yield CHECKPOINTS, DEMO
        return
    words = Tokenizer.from_file(str(Store(CHECKPOINTS).resolve(DEMO).path / "tokenizer.json"))
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as directory:
        publish(Path(directory), tokenizer=words)
        yield Path(directory), NAME
