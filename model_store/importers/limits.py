"""Limits of a process that reads what a stranger wrote."""

import resource
from pathlib import Path
from typing import Final

SPARE_BYTES: Final = 2**30
"""Memory that such a process may take beyond what it needs."""


def limit_process(*, memory: int, cpu_seconds: int, file_bytes: int) -> None:
    """Limits this process, for good. It can start no other process then, and leaves no core dump.

    Args:
        memory: bytes beyond those that Python and its modules have taken so far.
        cpu_seconds: seconds of one core.
        file_bytes: most bytes of a file that it writes.
    """
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
