"""The servers that the service is compared with, each as a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.processes import Server, free_port, serve_program


@contextmanager
def serve_plain(store: Path) -> Iterator[Server]:
    """Runs ``benchmarks.service.plain_server``."""
    port = free_port()
    with serve_program(
        "plain", ["-m", "benchmarks.service.plain_server", "--store", str(store), "--port", str(port)], port, {}
    ) as server:
        yield server


@contextmanager
def serve_echo(reply: Path) -> Iterator[Server]:
    """Runs ``benchmarks.score_cache.echo_server`` with the bytes of the file ``reply``."""
    port = free_port()
    with serve_program(
        "echo", ["-m", "benchmarks.score_cache.echo_server", "--reply", str(reply), "--port", str(port)], port, {}
    ) as server:
        yield server
