"""Programs of this repository as processes, free ports, and waiting with a bound."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

ROOT: Final = Path(__file__).parents[1]
HOST: Final = "127.0.0.1"
PATIENCE: Final = 30.0
"""Seconds to wait for another process; only what fails waits so long."""
START_SECONDS: Final = 120
"""Seconds for the service to load a model and become ready."""

_PORTS_EACH: Final = 1000
_TEST_PROCESS: Final = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
_FIRST_PORT: Final = 12_000 + _PORTS_EACH * (int(_TEST_PROCESS or os.getpid()) % 10)
"""Processes of one test run take their ports from different thousands."""
_random: Final = random.SystemRandom()  # a test that seeds `random` must not repeat ports
_given: Final[set[int]] = set()


@dataclass(frozen=True, slots=True)
class Server:
    """An HTTP server that runs as a process."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, from /proc: in ticks of 10 ms on most machines."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples in ``/metrics`` with this name and at least these labels.

        Raises:
            LookupError: there is no metric of this name.
        """
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = httpx.get(f"{self.url}/metrics", timeout=PATIENCE).raise_for_status().text.splitlines()
        samples = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        if not samples:
            raise LookupError(f"/metrics has no {name}")
        return sum(float(line.rpartition(" ")[2]) for line in samples if all(label in line for label in wanted))


@contextmanager
def serve_agentprm(store: Path, model: str, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Runs the service with one torch thread; every setting that is not given has its default."""
    port = free_port()
    own = {"AGENTPRM_MODEL_STORE": str(store), "AGENTPRM_MODELS": model, "AGENTPRM_PORT": str(port)}
    environment = {"AGENTPRM_LOG_LEVEL": "warning", "AGENTPRM_CPU_THREADS": "1", **own, **(settings or {})}
    with serve_program("agentprm", ["-m", "service"], port, environment) as server:
        yield server


@contextmanager
def serve_program(name: str, arguments: list[str], port: int, settings: dict[str, str]) -> Iterator[Server]:
    """Runs this interpreter with ``arguments`` until the block ends; yields once ``/ready`` on ``port`` is 200.

    Raises:
        RuntimeError: the process ended before it was ready.
        TimeoutError: it was not ready within ``START_SECONDS``.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTPRM_")}
    process = subprocess.Popen(  # noqa: S603  (this interpreter, our modules)
        [sys.executable, *arguments], cwd=ROOT, env={**inherited, "OMP_NUM_THREADS": "1", **settings}
    )
    try:
        url = f"http://{HOST}:{port}"
        ready = f"{url}/ready"
        wait_until(lambda: responds(ready, process), f"{name} at {url} did not become ready", START_SECONDS, pause=0.2)
        yield Server(name, url, process.pid)
    finally:
        stop(process)


def responds(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Returns whether a GET of ``url`` is answered with 200.

    Raises:
        RuntimeError: the process that should answer has ended.
    """
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def worker_processes(pid: int) -> list[int]:
    """Returns the ids of the processes that Python's multiprocessing has started for this one, oldest first.

    Its resource tracker, which does no work, is left out.
    """
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = sorted(int(child) for path in lists for child in _read_if_there(path).split())
    return [child for child in children if b"spawn_main" in _read_if_there(Path(f"/proc/{child}/cmdline"))]


def _read_if_there(path: Path) -> bytes:
    """Returns the content of a file below /proc; empty if its thread or process has just ended."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def stop(process: subprocess.Popen[bytes], seconds: float = PATIENCE) -> None:
    """Ends a process with SIGTERM, or with SIGKILL if it has not ended after ``seconds``."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)


def wait_until(
    condition: Callable[[], object], complaint: str, seconds: float = PATIENCE, *, pause: float = 0.02
) -> float:
    """Polls ``condition`` until it is true and returns the seconds that took; for what only another process knows.

    Raises:
        TimeoutError: it was not true within ``seconds``; ``complaint`` is a clause such as "Redis did not answer".
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{complaint} within {seconds:g} s")
        time.sleep(pause)
    return time.monotonic() - started


def free_port() -> int:
    """Returns a port that nobody listens on and that this process was not given before.

    It lies below the range from which the system takes the ports of clients, so a server that is down keeps its port.
    A node of a Redis cluster also takes the port 10000 above; that one lies below the range too.
    """
    while True:
        port = _random.randrange(_FIRST_PORT, _FIRST_PORT + _PORTS_EACH)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port
