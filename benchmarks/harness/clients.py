"""Clients as separate processes, and the CPU seconds that a server used meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, Final

from benchmarks.harness.conditions import ROOT
from benchmarks.workloads.requests import Load
from testbed.processes import PATIENCE, Server

CLIENT_SECONDS: Final = 3600
"""Seconds for a client to send all of its requests."""


def send(server: Server, load: Load, concurrency: int, pause: float = 0.0) -> dict[str, Any]:
    """Sends a load from a client process and returns its outcome with the server's CPU seconds meanwhile."""
    before = server.cpu_seconds()
    with sending(server, load, concurrency, pause=pause) as client:
        outcome = collect(client)
    return {**outcome, "cpu_seconds": server.cpu_seconds() - before}


@contextmanager
def sending(
    server: Server, load: Load, concurrency: int, *, pause: float = 0.0, endless: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Starts a client process; ``collect`` waits for its outcome."""
    orders = {"url": server.url, "path": load.path, "bodies": load.bodies, "concurrency": concurrency}
    with _client("benchmarks.harness.load_client", {**orders, "pause": pause, "endless": endless}) as client:
        yield client


def hit(server: Server, load: Load, concurrency: int, requests: int) -> dict[str, Any]:
    """Sends the first request of a load ``requests`` times from a cheap client; returns as ``send`` does."""
    orders = {"url": server.url, "path": load.path, "body": load.bodies[0], "requests": requests}
    before = server.cpu_seconds()
    with _client("benchmarks.harness.hit_client", {**orders, "concurrency": concurrency}) as client:
        outcome = collect(client)
    return {**outcome, "cpu_seconds": server.cpu_seconds() - before}


def collect(client: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for a client process and returns the outcome that it prints.

    Raises:
        RuntimeError: it failed; its complaint is on stderr.
        subprocess.TimeoutExpired: it has not ended within ``CLIENT_SECONDS``.
    """
    printed, _ = client.communicate(timeout=CLIENT_SECONDS)
    if client.returncode != 0:
        raise RuntimeError(f"the client ended with status {client.returncode}")
    outcome: dict[str, Any] = json.loads(printed)
    return outcome


@contextmanager
def _client(module: str, orders: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module]
    with TemporaryFile("w+", encoding="utf-8") as stdin:
        json.dump(orders, stdin)
        stdin.seek(0)
        client = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield client
    finally:
        client.kill()
        client.communicate(timeout=PATIENCE)
