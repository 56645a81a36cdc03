"""Rollout files in a directory that processes share: a reader sees whole files of whole lines, whoever is killed.

Lines are written to a hidden draft that is renamed when it is whole. Small files are put together into one, until that
is large or old. A process that is killed between the two renames leaves lines twice, which readers take as one.
"""

import os
import secrets
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

FILE_BYTES: Final = 64 * 1024 * 1024
FILE_SECONDS: Final = 3600
"""A file with as many bytes, or begun so long ago, gets no more lines."""
PARTS: Final = 60
"""Small files that are put together."""
SUFFIX: Final = ".jsonl"


class DirectoryFull(OSError):
    """The files have as many bytes as the operator allows; nothing is deleted."""


class RecordingFiles:
    """Appends lines to files of this process; one thread calls it.

    Args:
        directory: made with access for its owner only, as the files are.
        max_bytes: of all rollout files in it, those of other processes too.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        # Containers that share a host's name may have the same process id too.
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._parts: list[Path] = []
        self._count = 0
        self._whole: Path | None = None
        self._begun = 0.0

    def append(self, lines: bytes) -> None:
        """Makes lines, each with its newline, visible to readers at once.

        Raises:
            OSError: the disk fails or is full (``DirectoryFull``: the directory is); no line is there then.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        used = sum(map(_size, self.directory.glob(f"*{SUFFIX}")))
        if used + len(lines) > self._max_bytes:
            raise DirectoryFull(f"{self.directory} holds {used} bytes, of {self._max_bytes} allowed")
        part = self._new_name()
        self._write(part, lines)
        self._parts.append(part)
        if len(self._parts) % PARTS == 0:
            with suppress(OSError):  # the lines are safe in small files, which are put together later
                self.join()

    def join(self) -> None:
        """Puts the small files together into one. Raises OSError, and keeps them, if it cannot be written."""
        if not self._parts:
            return
        if self._whole is None:
            self._whole, self._begun = self._new_name(), monotonic()
        kept = [path for path in (self._whole, *self._parts) if path.exists()]  # an operator may have taken some away
        if kept:
            self._write(self._whole, b"".join(path.read_bytes() for path in kept))
        for part in self._parts:
            part.unlink(missing_ok=True)
        self._parts = []
        if _size(self._whole) >= FILE_BYTES or monotonic() - self._begun >= FILE_SECONDS:
            self._whole = None

    def _new_name(self) -> Path:
        self._count += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        return self.directory / f"{now}-{self._owner}-{self._count:06d}{SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """The bytes of a file; 0 if it has just been put together with others, or taken away."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
