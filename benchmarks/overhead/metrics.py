"""What counting costs: the service with its metrics and with none, in one process, in turns.

``python -m benchmarks.overhead.metrics [--rounds 40]`` writes ``benchmarks/results/metrics_cost.json``.

Requests go to the ASGI application, one after the other. There is no HTTP server in between, so what it costs does not
hide what the metrics cost. Both applications have a model of their own and get the same bodies; CPU seconds are those
of the process, engine thread included, on one core. A share divides the two of one round; the table has the median of
the rounds and their quartiles. With a free forward (the echo engine) the metrics of requests that are computed stand
out; beside a real forward they drown in how it varies.
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
    """Metrics that are none: every part of it is the same, and every call does nothing."""

    def __getattr__(self, _: str) -> "Nothing":
        return self

    def __call__(self, *_: object, **__: object) -> "Nothing":
        return self


class Cost(NamedTuple):
    """Seconds."""

    cpu: float
    wall: float


async def measure(case: Case, apps: dict[str, FastAPI], rounds: int) -> dict[str, Any]:
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
    """Each request to one and at once to the other, so that a machine that changes its pace does so for both."""
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
    """Differences and shares round by round, with their quartiles."""
    pairs = [(cost["with"], cost["without"]) for cost in costs]
    return {
        "cpu_us_a_request": quartiles([1e6 * one.cpu / requests for one, _ in pairs]),
        "metrics_us_a_request": quartiles([1e6 * (one.cpu - other.cpu) / requests for one, other in pairs]),
        "share_of_cpu": quartiles([1 - other.cpu / one.cpu for one, other in pairs]),
        "share_of_wall": quartiles([1 - other.wall / one.wall for one, other in pairs]),
    }


@asynccontextmanager
async def serving(load: Callable[[], LoadedModel], settings: Settings) -> AsyncIterator[dict[str, FastAPI]]:
    """Both applications, started."""
    counting = create_app([load()], settings, aliases={})
    with patch("service.app.Metrics", lambda *_: Nothing()):
        silent = create_app([load()], settings, aliases={})
    async with counting.router.lifespan_context(counting), silent.router.lifespan_context(silent):
        gc.collect()
        gc.freeze()  # as the service does after it has loaded
        yield {"with": counting, "without": silent}


async def bench(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as directory:
        settings = Settings(model_store=Path(directory), device="cpu", cpu_threads=1)
        real = partial(load_model, publish(Path(directory)), settings)
        async with serving(real, settings) as apps, serving(lambda: without_forward(real()), settings) as echoes:
            results = [await measure(case, apps if case.forward else echoes, rounds) for case in CASES]
            return {"results": results, "scrape_cpu_ms": 1000 * await _scrape(apps["with"])}


async def _scrape(app: FastAPI) -> float:
    """CPU seconds."""
    started = process_time()
    for _ in range(SCRAPES):
        await ask(app, "GET", "/metrics", b"")
    return (process_time() - started) / SCRAPES


def as_table(results: Sequence[dict[str, Any]]) -> str:
    def shown(one: dict[str, float], scale: float = 1, unit: str = "", digits: int = 1) -> str:
        median, low, high = (f"{scale * one[name]:.{digits}f}" for name in ("median", "q1", "q3"))
        return f"{median}{unit} ({low} to {high})"

    rows = [
        [
            one["case"],
            f"{one['cpu_us_a_request']['median']:.0f}",
            shown(one["metrics_us_a_request"]),
            shown(one["share_of_cpu"], 100, " %", 2),
            shown(one["share_of_wall"], 100, " %", 2),
        ]
        for one in results
    ]
    return table(COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.metrics", description="What counting costs.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/metrics_cost.json")
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING")
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # else it counts on which core a thread happens to be
    start = conditions()
    document = asyncio.run(bench(arguments.rounds))
    told = {**start, "model": "tiny", "load_average_at_end": conditions()["load_average"]}
    write_json(arguments.output, {"conditions": told, **document})
    print(as_table(document["results"]))
    print(f"\na scrape: {document['scrape_cpu_ms']:.1f} ms of CPU")


if __name__ == "__main__":
    main()
