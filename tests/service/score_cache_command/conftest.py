"""Real servers: with a password, behind a Sentinel, in a Cluster."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import pytest
from redis import Redis, ResponseError

from testbed.redis import find_valkey
from tests.service.score_cache_command.commands import PASSWORD, Server

PATIENCE = 30.0


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[int]:
    """Starts a server process and yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", "log")
    process = subprocess.Popen([str(find_valkey()), *arguments, *own])
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait(PATIENCE)


def wait_for_port(port: int) -> None:
    end = monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert monotonic() < end, "the server does not listen"
            sleep(0.02)


def wait_for_cluster(client: Redis) -> None:
    """Waits until a new node serves: it refuses commands for its first two seconds."""
    end = monotonic() + PATIENCE
    while True:
        try:
            client.set("anything", "")
        except ResponseError:
            assert monotonic() < end, "the cluster does not serve"
            sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        running(tmp_path_factory.mktemp("server"), "--save", "", "--requirepass", PASSWORD) as port,
        Redis(port=port, password=PASSWORD) as client,
    ):
        yield Server(f"redis://:{PASSWORD}@127.0.0.1:{port}", client)


@pytest.fixture(scope="module")
def sentinel(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sentinel")
    master = server.client.get_connection_kwargs()["port"]
    settings = f"sentinel monitor scores 127.0.0.1 {master} 1\nsentinel auth-pass scores {PASSWORD}\n"
    (folder / "sentinel.conf").write_text(settings, encoding="utf-8")
    with running(folder, str(folder / "sentinel.conf"), "--sentinel") as port:
        yield Server(f"redis+sentinel://:{PASSWORD}@127.0.0.1:{port}/scores", server.client)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cluster")
    with running(folder, "--save", "", "--cluster-enabled", "yes") as port, Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_for_cluster(client)
        yield Server(f"redis+cluster://127.0.0.1:{port}", client)


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return uuid4().hex
