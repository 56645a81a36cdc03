"""Real Redis and Valkey processes: each on a free port of this machine, in a directory of its own."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.retry import Retry

HOST: Final = "127.0.0.1"
PATIENCE: Final = 30.0
"""Seconds; only a test that fails waits so long."""
FIRST_PORT: Final = 12_000 + 1000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10)
"""Each process of a test run looks for free ports among a thousand of its own."""


class DidNotStart(Exception):
    """With what the process said."""


class Server:
    """A server process that can die, hang and come back on the port it had.

    Args:
        arguments: of the command line, as a configuration file would have them.
        password: of the user ``default``, for ``command``.
    """

    def __init__(self, binary: str, directory: Path, *arguments: str, password: str = "") -> None:
        self.port = free_port()
        self._binary = binary
        self._directory = directory
        self._arguments = arguments
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{HOST}:{self.port}" if self._password else f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        command = [self._binary, *self._arguments, "--bind", HOST, "--port", str(self.port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._directory)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, f"{self._binary} did not answer")

    def kill(self) -> None:
        """Ends it as a crash does, whatever it is doing; nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def hang(self) -> None:
        """It keeps its connections and even takes new ones, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: bytes | str | float) -> Any:
        """The answer to a command of an operator, over a connection of its own."""
        with Redis(
            host=HOST,
            port=self.port,
            password=self._password or None,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*words)

    @property
    def _log(self) -> Path:
        return self._directory / f"{self.port}.log"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise DidNotStart(self._log.read_text())
        try:
            return bool(self.command("PING"))
        except NoConnection:
            return False


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Start(Protocol):
    """Starts a server with arguments of the command line, or a Sentinel with its file."""

    def __call__(self, *arguments: str, password: str = "", sentinel: Path | None = None) -> Server: ...


@contextmanager
def starting(binary: str, directory: Path) -> Iterator[Start]:
    with ExitStack() as servers:

        def started(*arguments: str, password: str = "", sentinel: Path | None = None) -> Server:
            kind = (str(sentinel), "--sentinel") if sentinel else ("--save", "", "--appendonly", "no")
            return servers.enter_context(running(Server(binary, directory, *kind, *arguments, password=password)))

        yield started


def free_port() -> int:
    """One that nobody listens on, and outside the range that clients get theirs from: a server that is down keeps it.

    A cluster also takes the port 10000 above.
    """
    while True:
        port = random.randrange(FIRST_PORT, FIRST_PORT + 1000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def wait_until(condition: Callable[[], object], complaint: str) -> None:
    """For what only another process can tell."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)
