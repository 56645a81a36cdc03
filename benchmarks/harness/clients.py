"""Clients as processes of their own, and the CPU seconds that a server used meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness.conditions import ROOT
from benchmarks.workloads.requests import Load
from testbed.processes import Server


def send(server: Server, load: Load, concurrency: int, pause: float = 0.0) -> dict[str, Any]:
    """All of a load from a client process: its outcome, with the server's CPU seconds meanwhile."""
    before = server.cpu_seconds()
    with sending(server, load, concurrency, pause=pause) as client:
        outcome = collect(client)
    return {**outcome, "cpu_seconds": server.cpu_seconds() - before}


@contextmanager
def sending(
    server: Server, load: Load, concurrency: int, *, pause: float = 0.0, endless: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A client at work; ``collect`` waits for its outcome."""
    orders = {"url": server.url, "path": load.path, "bodies": load.bodies, "concurrency": concurrency}
    with _client("benchmarks.harness.load_client", {**orders, "pause": pause, "endless": endless}) as client:
        yield client


def hit(server: Server, load: Load, concurrency: int, requests: int) -> dict[str, Any]:
    """The first request of a load so many times, from a client process that costs little: as ``send``."""
    orders = {"url": server.url, "path": load.path, "body": load.bodies[0], "requests": requests}
    before = server.cpu_seconds()
    with _client("benchmarks.harness.hit_client", {**orders, "concurrency": concurrency}) as client:
        outcome = collect(client)
    return {**outcome, "cpu_seconds": server.cpu_seconds() - before}


def collect(client: subprocess.Popen[str]) -> dict[str, Any]:
    """What a client process reports when it has ended.

    Raises:
        RuntimeError: it failed; its complaint is on stderr.
    """
    assert client.stdout is not None
    printed = client.stdout.read()
    if client.wait() != 0:
        raise RuntimeError(f"the client ended with status {client.returncode}")
    outcome: dict[str, Any] = json.loads(printed)
    return outcome


@contextmanager
def _client(module: str, orders: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module]
    client = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps(orders))
        client.stdin.close()
        yield client
    finally:
        if client.poll() is None:
            client.kill()
        client.wait()
