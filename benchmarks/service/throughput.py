"""Throughput over HTTP: the service, a plain FastAPI handler around the same model, and the bare engine.

Both servers and the callers are processes. The bare engine gets the same requests in this process, already rendered,
as many at a time as there are callers. Every round sends texts that no server has seen. A cost is the CPU seconds of
the server process, so that the client's do not count.
"""

import logging
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.speed import TOLERANCE, Engines, build_engines
from benchmarks.harness.clients import collect, send, sending
from benchmarks.harness.timing import largest_difference, percentiles, ratios
from benchmarks.service.servers import serve_plain
from benchmarks.workloads.requests import NAME, Load, as_call, bulk_load, publish, rank_load, step_load
from model_store.network.model import load_model
from model_store.text.renderer import Renderer, load_renderer
from testbed.processes import Server, serve_agentprm

logger = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of requests by concurrency, sizes of W1, interactive requests, and sizes of the flood."""

    rank_counts: dict[int, int]
    history: int
    candidates: int
    step_counts: dict[int, int]
    interactive: int
    bulk_tokens: int
    bulk_steps: int
    bulk_callers: int = 8

    def cases(self) -> list[tuple[int, Callable[[str], Load]]]:
        """Returns the concurrency of each case and a function from a seed to its load."""
        ranks = [
            (callers, partial(rank_load, count, self.history, self.candidates))
            for callers, count in self.rank_counts.items()
        ]
        steps = [(callers, partial(step_load, count, 30, 480)) for callers, count in self.step_counts.items()]
        return [*ranks, *steps]


FULL: Final = Sizes(
    {1: 8, 8: 16, 32: 64}, 512, 16, {1: 64, 8: 128, 32: 256}, interactive=100, bulk_tokens=1024, bulk_steps=16
)
QUICK: Final = Sizes({1: 3, 8: 8}, 128, 4, {1: 8, 8: 16, 32: 64}, interactive=20, bulk_tokens=256, bulk_steps=4)


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers, the bare engine, and the renderer for the engine's calls."""

    servers: tuple[Server, ...]
    bare: Engines
    renderer: Renderer

    def round(self, concurrency: int, load: Load) -> dict[str, dict[str, Any]]:
        """Sends one load to every server and to the bare engine; returns outcomes by name."""
        outcomes = {server.name: send(server, load, concurrency) for server in self.servers}
        return {**outcomes, "bare_engine": self._bare(concurrency, load)}

    def _bare(self, concurrency: int, load: Load) -> dict[str, Any]:
        self.bare.engine.prefix_cache.clear()
        chunks = [load.bodies[first : first + concurrency] for first in range(0, len(load.bodies), concurrency)]
        calls = [as_call(self.renderer, load.path, chunk) for chunk in chunks]
        started, started_cpu = time.perf_counter(), time.process_time()
        scored = [row.raw for call in calls for row in self.bare.engine.score(call.token_ids, call.reads)]
        cpu, seconds = time.process_time() - started_cpu, time.perf_counter() - started
        return {"raw": scored, "cpu_seconds": cpu, "seconds": seconds, "refused": 0}


def bench_service(sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Measures throughput by workload and concurrency, then latency during a flood."""
    with ExitStack() as running:
        store = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-store-")))
        checkpoint = publish(store)
        servers = (running.enter_context(serve_agentprm(store, NAME)), running.enter_context(serve_plain(store)))
        bare = build_engines(load_model(checkpoint, "cpu", "float32"))
        bench = Bench(servers, bare, load_renderer(checkpoint))
        bench.round(1, rank_load(2, 64, 2, "warm-up"))
        results = [_case(bench, callers, make, rounds) for callers, make in sizes.cases()]
        mixed = [mixed_load(server, sizes) for server in servers]
    return {"results": results, "mixed_load": mixed}


def _case(bench: Bench, concurrency: int, make: Callable[[str], Load], rounds: int) -> dict[str, Any]:
    loads = [make(f"{concurrency} {number}") for number in range(rounds)]
    logger.info("%s %s over HTTP, %d at a time", loads[0].workload, loads[0].case, concurrency)
    outcomes = [bench.round(concurrency, load) for load in loads]
    costs = {name: [outcome[name]["cpu_seconds"] for outcome in outcomes] for name in outcomes[0]}
    # The bare engine answers by sequence, a server by request: only the order of all scores is common.
    differ = {
        name: max(largest_difference(by_name[name]["raw"], by_name["bare_engine"]["raw"]) for by_name in outcomes)
        for name in costs
    }
    items = sum(load.items for load in loads)
    return {
        "workload": loads[0].workload,
        "case": loads[0].case,
        "concurrency": concurrency,
        "requests_a_round": len(loads[0].bodies),
        "items": items,
        "max_diff": differ,
        "equal": max(differ.values()) <= TOLERANCE,
        "servers": {name: _describe(name, [outcome[name] for outcome in outcomes], costs, items) for name in costs},
    }


def _describe(name: str, outcomes: list[dict[str, Any]], costs: dict[str, list[float]], items: int) -> dict[str, Any]:
    latencies = [latency for outcome in outcomes for latency in outcome.get("latency_ms", ())]
    return {
        "cpu_seconds_by_round": costs[name],
        "items_per_cpu_second": items / sum(costs[name]),
        "items_per_second": items / sum(outcome["seconds"] for outcome in outcomes),
        "refused": sum(outcome["refused"] for outcome in outcomes),
        "over_plain": ratios(costs["plain"], costs[name])._asdict(),
        "over_bare_engine": ratios(costs["bare_engine"], costs[name])._asdict(),
        **({"wall_ms": percentiles(latencies)} if latencies else {}),
    }


def mixed_load(server: Server, sizes: Sizes) -> dict[str, Any]:
    """Measures one agent's ``/rank_actions``, alone and while other callers send trajectories without a pause."""
    logger.info("latency beside a flood: %s", server.name)
    idle, loaded = (rank_load(sizes.interactive, 256, 8, f"mixed {phase}") for phase in ("idle", "loaded"))
    bulk = bulk_load(4 * sizes.bulk_callers, sizes.bulk_tokens, sizes.bulk_steps, "mixed")
    alone = percentiles(send(server, idle, 1, PAUSE_SECONDS)["latency_ms"])
    with sending(server, bulk, sizes.bulk_callers, endless=True) as flood:
        time.sleep(SETTLE_SECONDS)
        beside = percentiles(send(server, loaded, 1, PAUSE_SECONDS)["latency_ms"])
        flood.send_signal(signal.SIGTERM)
        bulk_outcome = collect(flood)
    return {
        "server": server.name,
        "idle_ms": alone,
        "loaded_ms": beside,
        "p95_ratio": beside["p95"] / alone["p95"],
        "bulk_items_per_second": sum(map(len, bulk_outcome["raw"])) / bulk_outcome["seconds"],
        "bulk_case": bulk.case,
        "bulk_callers": sizes.bulk_callers,
    }
