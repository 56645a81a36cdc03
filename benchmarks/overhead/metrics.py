"""Cost of metrics: the service with and without them, in turns in one process.

``python -m benchmarks.overhead.metrics [--rounds 40]`` writes ``benchmarks/results/metrics_cost.json``.

Requests go to the ASGI application one after another; without an HTTP server, its cost does not hide that of the
metrics. Both applications have a model of their own and get the same bodies. CPU seconds are those of the process, with
the engine's thread, on one core. A share compares both applications within a round; the table has the median and the
quartiles of all rounds. The cost of metrics is clearest with the echo engine, whose forward is free; a real forward
varies by more than that.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import torch
from fastapi import FastAPI

from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import table, write_json
from benchmarks.overhead.in_process import CASES, KNOWN_TIMES, Case, ask, quartiles, without_forward
from benchmarks.workloads.requests import publish
from service.app import create_app
from service.models.load import LoadedModel, load_model
from service.settings import Settings

SCRAPES: Final = 50
COLUMNS: Final = ("case", "CPU us a request", "of it metrics", "share of CPU", "share of wall time")


class Nothing:
    """Stands in for the metrics: every attribute is the object itself, and every call does nothing."""

    def __getattr__(self, _: str) -> "Nothing":
        return self

    def __call__(self, *_: object, **__: object) -> "Nothing":
        return self


class Cost(NamedTuple):
    """CPU and wall seconds."""

    cpu: float
    wall: float


async def measure(case: Case, apps: dict[str, FastAPI], rounds: int) -> dict[str, Any]:
    """Measures both applications on the requests of one case."""
    costs = []
    for number in range(-2, rounds):  # the first two warm up
        load = case.load("known" if case.known else str(number))
        contents = [json.dumps(body).encode() for body in load.bodies] * (KNOWN_TIMES if case.known else 1)
        costs.append(await _round(apps, load.path, contents))
    return {
        "case": case.name,
        "requests_a_round": len(contents),
        "rounds": rounds,
        **_compared(costs[2:], len(contents)),
    }


async def _round(apps: dict[str, FastAPI], path: str, contents: Sequence[bytes]) -> dict[str, Cost]:
    """Sends each request to both applications in turn, so that a change of the machine's pace affects both."""
    gc.collect()
    costs = dict.fromkeys(apps, Cost(0.0, 0.0))
    turns = list(apps.items())
    for content in contents:
        for name, app in turns:
            started = Cost(process_time(), perf_counter())
            await ask(app, "POST", path, content)
            cpu, wall = costs[name]
            costs[name] = Cost(cpu + process_time() - started.cpu, wall + perf_counter() - started.wall)
        turns.reverse()
    return costs


def _compared(costs: Sequence[dict[str, Cost]], requests: int) -> dict[str, Any]:
    """Returns quartiles of the differences and shares of all rounds."""
    pairs = [(cost["with"], cost["without"]) for cost in costs]
    return {
        "cpu_us_a_request": quartiles([1e6 * counted.cpu / requests for counted, _ in pairs]),
        "metrics_us_a_request": quartiles([1e6 * (counted.cpu - silent.cpu) / requests for counted, silent in pairs]),
        "share_of_cpu": quartiles([1 - silent.cpu / counted.cpu for counted, silent in pairs]),
        "share_of_wall": quartiles([1 - silent.wall / counted.wall for counted, silent in pairs]),
    }


@asynccontextmanager
async def serving(load: Callable[[], LoadedModel], settings: Settings) -> AsyncIterator[dict[str, FastAPI]]:
    """Starts both applications."""
    counting = create_app([load()], settings, aliases={})
    with patch("service.app.Metrics", lambda *_: Nothing()):
        silent = create_app([load()], settings, aliases={})
    async with counting.router.lifespan_context(counting), silent.router.lifespan_context(silent):
        gc.collect()
        gc.freeze()  # as the service does after it has loaded
        yield {"with": counting, "without": silent}


async def bench(rounds: int) -> dict[str, Any]:
    """Measures every case, and the cost of a scrape."""
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as directory:
        settings = Settings(model_store=Path(directory), device="cpu", cpu_threads=1)
        real = partial(load_model, publish(Path(directory)), settings)
        async with serving(real, settings) as apps, serving(lambda: without_forward(real()), settings) as echoes:
            results = [await measure(case, apps if case.forward else echoes, rounds) for case in CASES]
            return {"results": results, "scrape_cpu_ms": 1000 * await _scrape(apps["with"])}


async def _scrape(app: FastAPI) -> float:
    """Returns the CPU seconds of one scrape."""
    started = process_time()
    for _ in range(SCRAPES):
        await ask(app, "GET", "/metrics", b"")
    return (process_time() - started) / SCRAPES


def as_table(results: Sequence[dict[str, Any]]) -> str:
    def shown(spread: dict[str, float], scale: float = 1, unit: str = "", digits: int = 1) -> str:
        median, low, high = (f"{scale * spread[name]:.{digits}f}" for name in ("median", "q1", "q3"))
        return f"{median}{unit} ({low} to {high})"

    rows = [
        [
            result["case"],
            f"{result['cpu_us_a_request']['median']:.0f}",
            shown(result["metrics_us_a_request"]),
            shown(result["share_of_cpu"], 100, " %", 2),
            shown(result["share_of_wall"], 100, " %", 2),
        ]
        for result in results
    ]
    return table(COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.metrics", description="Cost of metrics.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/metrics_cost.json")
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING")
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # threads on different cores would cost differently
    start = conditions()
    document = asyncio.run(bench(arguments.rounds))
    measured_on = {**start, "model": "tiny", "load_average_at_end": conditions()["load_average"]}
    write_json(arguments.output, {"conditions": measured_on, **document})
    print(as_table(document["results"]))
    print(f"\na scrape: {document['scrape_cpu_ms']:.1f} ms of CPU")


if __name__ == "__main__":
    main()
