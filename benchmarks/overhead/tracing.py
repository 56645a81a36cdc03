"""Cost of traces: the service without them, with spans, and with spans and events, in turns in one process.

``python -m benchmarks.overhead.tracing [--rounds 20]`` writes ``benchmarks/results/tracing_cost.json``.

The requests are those of ``benchmarks.overhead.metrics``, sent to the ASGI application without an HTTP server. In a
round each application gets all of them and then exports the rest, so that encoding and posting count for the right
one. The collector is a process whose CPU is not counted. Every request has a sampled ``traceparent``.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, Final

import torch
from fastapi import FastAPI

from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import table, write_json
from benchmarks.overhead.in_process import CASES, KNOWN_TIMES, Case, ask, quartiles, without_forward
from benchmarks.workloads.requests import publish
from service.app import create_app
from service.models.load import LoadedModel, load_model
from service.settings import Settings
from service.tracing import Tracing
from service.tracing.exports import Exports
from service.tracing.requests import TracedRequests
from testbed.processes import PATIENCE

TRACEPARENT: Final = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
COLUMNS: Final = ("case", "CPU us a request", "spans", "share", "spans and events", "share")
WARM_UPS: Final = 2
COLLECTOR: Final = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Traced:
    """An application and its exporters."""

    app: FastAPI
    exports: Exports | None = None


async def measure(case: Case, traced: Mapping[str, Traced], rounds: int) -> dict[str, Any]:
    """Measures the three applications on the requests of one case."""
    costs: dict[str, list[float]] = {name: [] for name in traced}
    turns = list(traced.items())
    for number in range(-WARM_UPS, rounds):
        load = case.load("known" if case.known else str(number))
        contents = [json.dumps(body).encode() for body in load.bodies] * (KNOWN_TIMES if case.known else 1)
        for name, application in turns:
            costs[name].append(await _block(application, load.path, contents))
        turns.append(turns.pop(0))
    kept = {name: seconds[WARM_UPS:] for name, seconds in costs.items()}
    return {"case": case.name, "requests_a_round": len(contents), "rounds": rounds, **_compared(kept, len(contents))}


async def _block(traced: Traced, path: str, contents: Sequence[bytes]) -> float:
    """Returns the CPU seconds of these requests and of their export."""
    gc.collect()
    started = process_time()
    for content in contents:
        await ask(traced.app, "POST", path, content, TRACEPARENT)
    for provider in traced.exports.providers if traced.exports else ():
        provider.force_flush()
    return process_time() - started


def _compared(costs: Mapping[str, Sequence[float]], requests: int) -> dict[str, Any]:
    off = costs["off"]
    compared: dict[str, Any] = {"off_cpu_us_a_request": quartiles([1e6 * seconds / requests for seconds in off])}
    for name in ("traces", "events"):
        pairs = list(zip(costs[name], off, strict=True))
        compared[f"{name}_us_a_request"] = quartiles([1e6 * (traced - plain) / requests for traced, plain in pairs])
        compared[f"{name}_share_of_cpu"] = quartiles([1 - plain / traced for traced, plain in pairs])
    return compared


@asynccontextmanager
async def serving(load: Callable[[], LoadedModel], settings: Settings) -> AsyncIterator[dict[str, Traced]]:
    """Starts all three applications."""
    traced = {"off": Traced(create_app([load()], settings, aliases={}))}
    for name in ("traces", "events"):
        exports = Exports(events=name == "events")
        tracing = Tracing(partial(TracedRequests, exports=exports), exports.close)
        traced[name] = Traced(create_app([load()], settings, aliases={}, tracing=tracing), exports)
    async with AsyncExitStack() as stack:
        for application in traced.values():
            await stack.enter_async_context(application.app.router.lifespan_context(application.app))
        gc.collect()
        gc.freeze()  # as the service does after it has loaded
        yield traced


@contextmanager
def collecting() -> Iterator[str]:
    """Runs a collector and yields its address."""
    command = [sys.executable, "-c", COLLECTOR]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  (this file's own)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


async def bench(rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="benchmark-store-") as directory:
        settings = Settings(model_store=Path(directory), device="cpu", cpu_threads=1)
        real = partial(load_model, publish(Path(directory)), settings)
        async with serving(real, settings) as apps, serving(lambda: without_forward(real()), settings) as echoes:
            return [await measure(case, apps if case.forward else echoes, rounds) for case in CASES]


def as_table(results: Sequence[dict[str, Any]]) -> str:
    def shown(spread: dict[str, float], scale: float = 1, unit: str = "", digits: int = 0) -> str:
        median, low, high = (f"{scale * spread[name]:.{digits}f}" for name in ("median", "q1", "q3"))
        return f"{median}{unit} ({low} to {high})"

    rows = [
        [
            result["case"],
            f"{result['off_cpu_us_a_request']['median']:.0f}",
            *(
                cell
                for name in ("traces", "events")
                for cell in (
                    shown(result[f"{name}_us_a_request"]),
                    shown(result[f"{name}_share_of_cpu"], 100, " %", 1),
                )
            ),
        ]
        for result in results
    ]
    return table(COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead.tracing", description="Cost of traces.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/tracing_cost.json")
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING")
    torch.set_num_threads(1)
    start = conditions()
    with collecting() as url:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # threads on different cores would cost differently
        results = asyncio.run(bench(arguments.rounds))
    measured_on = {**start, "model": "tiny", "load_average_at_end": conditions()["load_average"]}
    write_json(arguments.output, {"conditions": measured_on, "results": results})
    print(as_table(results))


if __name__ == "__main__":
    main()
