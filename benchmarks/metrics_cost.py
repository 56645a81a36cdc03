"""What counting costs: the service with its metrics and with none, in one process, in turns.

``python -m benchmarks.metrics_cost [--rounds 40]`` writes ``benchmarks/results/metrics_cost.json``.

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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import torch
from fastapi import FastAPI

from benchmarks.conditions import ROOT, conditions
from benchmarks.report import table, write_json
from benchmarks.requests import Load, publish, rank_load, step_load
from service.app import create_app
from service.engine.echo import EchoEngine
from service.models.load import LoadedModel, load_model
from service.settings import Settings

KNOWN_TIMES: Final = 100
SCRAPES: Final = 50
COLUMNS: Final = ("case", "CPU us a request", "of it metrics", "share of CPU", "share of wall time")
Message = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Case:
    """``load`` makes the requests of a round; ``known``: the same request again and again, its scores in memory."""

    name: str
    load: Callable[[str], Load]
    known: bool = False
    forward: bool = True


CASES: Final = (
    Case("rank 8 over a new 256-token history", partial(rank_load, 8, 256, 8)),
    Case("a new step of 30-480 tokens", partial(step_load, 16, 30, 480)),
    Case("the same, forward free", partial(step_load, 50, 30, 480), forward=False),
    Case("rank 16, all known", partial(rank_load, 1, 1024, 16), known=True),
    Case("rank 64, all known", partial(rank_load, 1, 1024, 64), known=True),
    Case("a step of 30 tokens, known", partial(step_load, 1, 30, 30), known=True),
)


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


async def ask(app: FastAPI, method: str, path: str, content: bytes, *headers: tuple[bytes, bytes]) -> None:
    unread: list[Message] = [{"type": "http.request", "body": content}]
    statuses: list[int] = []

    async def receive() -> Message:
        return unread.pop() if unread else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    if statuses != [200]:
        raise RuntimeError(f"{path} answered {statuses}")


def _compared(costs: Sequence[dict[str, Cost]], requests: int) -> dict[str, Any]:
    """Differences and shares round by round, with their quartiles."""
    pairs = [(cost["with"], cost["without"]) for cost in costs]
    return {
        "cpu_us_a_request": quartiles([1e6 * one.cpu / requests for one, _ in pairs]),
        "metrics_us_a_request": quartiles([1e6 * (one.cpu - other.cpu) / requests for one, other in pairs]),
        "share_of_cpu": quartiles([1 - other.cpu / one.cpu for one, other in pairs]),
        "share_of_wall": quartiles([1 - other.wall / one.wall for one, other in pairs]),
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("q1", "median", "q3"), quantiles(values, n=4), strict=True))


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


def without_forward(model: LoadedModel) -> LoadedModel:
    return replace(model, engine=EchoEngine(), prefix_cache=None)


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics_cost", description="What counting costs.")
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
