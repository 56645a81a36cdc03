"""Takes what was scored from the event loop, and writes it from a thread of its own."""

import logging
import threading
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from agentprm.errors import NotReady
from agentprm.rollouts import OutcomeLine, TrajectoryLine, write_line
from service.recording.files import RecordingFiles

logger = logging.getLogger(__name__)

SECONDS: Final = 1.0
"""Between two writes: the newest recording of a trajectory is written at most so often, and as much may be lost."""
RETRY_SECONDS: Final = 15.0
"""Between two attempts while the disk fails: each makes all lines that wait anew, which slows scores down."""
WAITING_BYTES: Final = 64 * 1024 * 1024
"""Most bytes that wait to be written, of histories the characters of their texts."""
END_SECONDS: Final = 10.0


class Counts(Protocol):
    """Told by the recorder what became of lines."""

    def on_written(self, trajectories: int, outcomes: int) -> None: ...

    def on_dropped(self) -> None: ...

    def on_failure(self) -> None: ...


class _Waiting(NamedTuple):
    line: TrajectoryLine
    size: int


class _Outcome(NamedTuple):
    line: OutcomeLine
    size: int


class Recorder:
    """Records the newest history of each trajectory and every outcome. Its methods but ``close`` never wait for a disk.

    What a failing disk does not take stays and is tried again, as far as memory allows.
    """

    def __init__(self, files: RecordingFiles, counts: Counts) -> None:
        self._files = files
        self._counts = counts
        self._lock = threading.Lock()
        self._trajectories: dict[str, _Waiting] = {}
        self._outcomes: list[_Outcome] = []
        self._size = 0
        self._failure = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Writes what waits and ends the thread; waits for a slow disk a few seconds."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def add(self, line: TrajectoryLine, size: int) -> None:
        """Takes a scored history with a ``trajectory_id``; ``size`` is about the bytes of its line.

        Within a second the longest history of a trajectory stays. It is dropped, and counted, if too much waits.
        """
        assert line.trajectory_id is not None, "a history without it cannot be joined with its outcome"
        with self._lock:
            before = self._trajectories.get(line.trajectory_id)
            if before and before.line.step_count > line.step_count:
                return
            grown = size - (before.size if before else 0)
            if self._size + grown > WAITING_BYTES:
                self._counts.on_dropped()
                return
            self._trajectories[line.trajectory_id] = _Waiting(line, size)
            self._size += grown

    def add_outcome(self, line: OutcomeLine, size: int) -> None:
        """Takes an outcome; ``size`` is about the bytes of its line.

        Raises:
            NotReady: the disk fails or too much waits; the caller has to come again.
        """
        with self._lock:
            if self._failure or self._size + size > WAITING_BYTES:
                raise NotReady("outcomes cannot be recorded now; the service's log says why")
            self._outcomes.append(_Outcome(line, size))
            self._size += size

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(RETRY_SECONDS if self._failure else SECONDS)
            self._write()
        try:
            self._files.join()
        except OSError as error:
            logger.error("recordings stay in small files: %s", error.strerror or error)  # noqa: TRY400  (one sentence)

    def _write(self) -> None:
        with self._lock:
            trajectories, outcomes = self._trajectories, self._outcomes
            self._trajectories, self._outcomes, self._size = {}, [], 0
        if not trajectories and not outcomes:
            return
        lines: list[TrajectoryLine | OutcomeLine] = [waiting.line for waiting in trajectories.values()]
        lines += [waiting.line for waiting in outcomes]
        try:
            self._files.append(b"".join(map(write_line, lines)))
        except OSError as error:
            self._put_back(trajectories, outcomes)
            self._fail(str(error.strerror or error))
        else:
            self._counts.on_written(len(trajectories), len(outcomes))
            self._recover()

    def _put_back(self, trajectories: dict[str, _Waiting], outcomes: list[_Outcome]) -> None:
        with self._lock:
            self._outcomes[:0] = outcomes
            self._size += sum(outcome.size for outcome in outcomes)
        for waiting in trajectories.values():
            self.add(*waiting)

    def _fail(self, why: str) -> None:
        if not self._failure:
            logger.error("trajectories cannot be recorded, and are tried again: %s", why)
        self._failure = why
        self._counts.on_failure()

    def _recover(self) -> None:
        if self._failure:
            logger.info("trajectories are recorded again")
        self._failure = ""


def open_recorder(directory: Path | None, max_bytes: int, counts: Counts) -> Recorder | None:
    """Returns a recorder to be started; None without a directory. ``max_bytes`` are those of all files in it."""
    return None if directory is None else Recorder(RecordingFiles(directory, max_bytes), counts)
