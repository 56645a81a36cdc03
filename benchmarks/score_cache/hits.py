"""Throughput of rankings whose scores are cached, beside a FastAPI app that answers with ready bytes.

The model that computed the scores does not matter here, so it is the smallest.
"""

import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.engine.speed import TOLERANCE
from benchmarks.harness.clients import hit
from benchmarks.harness.timing import largest_difference, percentiles, ratios
from benchmarks.service.servers import serve_echo
from benchmarks.workloads.models import judge_config
from benchmarks.workloads.requests import NAME, Load, publish, rank_load
from testbed.processes import PATIENCE, Server, serve_agentprm

logger = logging.getLogger(__name__)

CONCURRENCIES: Final = (1, 8, 32)
WARM_UP: Final = 50


@dataclass(frozen=True, slots=True)
class HitSizes:
    """Tokens of history and number of candidates of each ranking, and how often it is sent in a round."""

    shapes: tuple[tuple[int, int], ...]
    requests: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two servers that answer the same request with equally many bytes; ``computed`` are the first reply's scores."""

    agentprm: Server
    echo: Server
    load: Load
    computed: list[float]

    def at(self, concurrency: int, requests: int, rounds: int) -> dict[str, Any]:
        """Measures both servers in turns, with ``concurrency`` connections."""
        logger.info("hits: %s, %d at a time", self.load.case, concurrency)
        outcomes = [self._round(concurrency, requests, number) for number in range(rounds)]
        replies = [reply for by_name in outcomes for outcome in by_name.values() for reply in outcome["replies"]]
        differ = max(largest_difference([raw_scores(reply)], [self.computed]) for reply in replies)
        by_server = {name: [by_name[name] for by_name in outcomes] for name in ("agentprm", "echo")}
        costs = {name: [outcome["cpu_seconds"] for outcome in served] for name, served in by_server.items()}
        return {
            "case": self.load.case,
            "concurrency": concurrency,
            "requests_a_round": requests,
            "servers": {name: _describe(served, requests) for name, served in by_server.items()},
            "over_echo": ratios(costs["agentprm"], costs["echo"])._asdict(),
            "max_diff": differ,
            "equal": differ <= TOLERANCE,
        }

    def _round(self, concurrency: int, requests: int, number: int) -> dict[str, dict[str, Any]]:
        both = (self.agentprm, self.echo)
        turns = reversed(both) if number % 2 else both
        return {server.name: hit(server, self.load, concurrency, requests) for server in turns}


def hits(sizes: HitSizes, rounds: int) -> list[dict[str, Any]]:
    """Measures each ranking at each concurrency."""
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-store-")))
        publish(directory / "store", judge_config())
        server = running.enter_context(serve_agentprm(directory / "store", NAME))
        return [
            result
            for history, candidates in sizes.shapes
            for result in _beside_echo(server, rank_load(1, history, candidates, "hits"), directory, sizes, rounds)
        ]


def _beside_echo(server: Server, load: Load, directory: Path, sizes: HitSizes, rounds: int) -> list[dict[str, Any]]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        computed, known = (client.post(load.path, json=load.bodies[0]).raise_for_status() for _ in range(2))
    reply = directory / "reply.json"
    reply.write_bytes(known.content)
    with serve_echo(reply) as echo:
        for answering in (server, echo):
            hit(answering, load, 1, WARM_UP)
        comparison = Comparison(server, echo, load, raw_scores(computed.json()))
        sent = {"body_bytes": len(computed.request.content), "reply_bytes": len(known.content)}
        return [{**comparison.at(callers, sizes.requests, rounds), **sent} for callers in CONCURRENCIES]


def raw_scores(reply: dict[str, Any]) -> list[float]:
    """Returns the raw scores of a reply in the order of the candidates."""
    return [entry["raw"] for entry in sorted(reply["results"][0]["ranking"], key=lambda entry: entry["index"])]


def _describe(outcomes: list[dict[str, Any]], requests: int) -> dict[str, Any]:
    costs = [outcome["cpu_seconds"] for outcome in outcomes]
    return {
        "cpu_seconds_by_round": costs,
        "requests_per_cpu_second": requests * len(costs) / sum(costs),
        "requests_per_second": requests * len(costs) / sum(outcome["seconds"] for outcome in outcomes),
        "wall_ms": percentiles([latency for outcome in outcomes for latency in outcome["latency_ms"]]),
    }
