"""Servers and clients as processes of their own, and the CPU seconds that a server has used."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.conditions import ROOT
from benchmarks.requests import NAME, Load

START_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, from /proc: in ticks of 10 ms on most machines."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serve_agentprm(store: Path) -> Iterator[Server]:
    """The service as shipped: default settings, one thread."""
    port = _free_port()
    settings = {"AGENTPRM_MODEL_STORE": str(store), "AGENTPRM_MODELS": NAME, "AGENTPRM_PORT": str(port)}
    with _serve("agentprm", ["-m", "service"], port, {**settings, "AGENTPRM_LOG_LEVEL": "warning"}) as server:
        yield server


@contextmanager
def serve_plain(store: Path) -> Iterator[Server]:
    port = _free_port()
    with _serve(
        "plain", ["-m", "benchmarks.plain_server", "--store", str(store), "--port", str(port)], port, {}
    ) as one:
        yield one


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
    command = [sys.executable, "-m", "benchmarks.load_client"]
    client = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps({**orders, "pause": pause, "endless": endless}))
        client.stdin.close()
        yield client
    finally:
        if client.poll() is None:
            client.kill()
        client.wait()


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
def _serve(name: str, arguments: list[str], port: int, settings: dict[str, str]) -> Iterator[Server]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTPRM_")}
    process = subprocess.Popen(  # noqa: S603  (this interpreter, our modules)
        [sys.executable, *arguments], cwd=ROOT, env={**inherited, "OMP_NUM_THREADS": "1", **settings}
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, process)
        yield Server(name, url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"no server at {url} within {START_SECONDS} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
