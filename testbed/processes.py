"""The service as a process, free ports, waiting."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).parents[1]
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

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples in ``/metrics`` that have this name and these labels, whatever their others."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = httpx.get(f"{self.url}/metrics").raise_for_status().text.splitlines()
        samples = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        if not samples:
            raise LookupError(f"/metrics has no {name}")
        return sum(float(line.rpartition(" ")[2]) for line in samples if all(one in line for one in wanted))


@contextmanager
def serve_agentprm(store: Path, model: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The service as shipped, one thread: default settings but for those given."""
    port = free_port()
    own = {"AGENTPRM_MODEL_STORE": str(store), "AGENTPRM_MODELS": model, "AGENTPRM_PORT": str(port)}
    environment = {"AGENTPRM_LOG_LEVEL": "warning", "AGENTPRM_CPU_THREADS": "1", **own, **(settings or {})}
    with serve_program("agentprm", ["-m", "service"], port, environment) as server:
        yield server


@contextmanager
def serve_program(name: str, arguments: list[str], port: int, settings: dict[str, str]) -> Iterator[Server]:
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


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took, in seconds.

    Raises:
        RuntimeError: it has not come true in time.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
