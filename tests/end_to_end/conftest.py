"""The service as a user starts it: its own process, the bundled checkpoint, a free port."""

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agentprm import Client

ROOT = Path(__file__).parents[2]
STARTED = "serving "


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ready server."""
    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@contextmanager
def serving(directory: Path, **settings: str) -> Iterator[str]:
    """The address of a ready server with these settings; its log goes into ``directory``."""
    with started(directory, None, **settings) as (_, url):
        yield url


@contextmanager
def started(
    directory: Path, trust: ssl.SSLContext | None = None, **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server's process, and its address once it is ready; ``trust`` is for one that speaks TLS."""
    log = directory / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTPRM_")}
    environment |= {"AGENTPRM_PORT": "0", "AGENTPRM_CPU_THREADS": "1"}
    environment |= {f"AGENTPRM_{name.upper()}": value for name, value in settings.items()}
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=stream)
    try:
        yield process, wait_until_ready(process, log, trust)
    finally:
        process.terminate()
        process.wait(timeout=100)


def wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, trust: ssl.SSLContext | None = None, seconds: float = 120
) -> str:
    """Returns the address in the log, once ``/ready`` answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if STARTED in line:
                url = line.rsplit(" ", 1)[-1]
                with Client(url, transport=httpx.HTTPTransport(verify=trust or True)) as client:
                    if client.ready():
                        return url
        time.sleep(0.1)
    raise AssertionError(f"the server did not become ready:\n{log.read_text()}")


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected
