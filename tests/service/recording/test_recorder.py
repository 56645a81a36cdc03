"""What was scored comes back as rollouts: the longest history of each trajectory, joined with its outcome."""

import logging
import stat
import threading
from pathlib import Path

import pytest

from agentprm.errors import NotReady
from agentprm.rollouts import OutcomeLine, TrajectoryLine, read_line
from service.recording import files as files_module
from service.recording import recorder as recorder_module
from service.recording.files import DirectoryFull, RecordingFiles
from service.recording.recorder import Recorder

AMPLE = 1_000_000


class Told:
    """Counts what a recorder tells, and sets an event at each write and failure."""

    def __init__(self) -> None:
        self.written, self.dropped, self.failures = [0, 0], 0, 0
        self.wrote, self.failed = threading.Event(), threading.Event()

    def on_written(self, trajectories: int, outcomes: int) -> None:
        self.written[0] += trajectories
        self.written[1] += outcomes
        self.wrote.set()

    def on_dropped(self) -> None:
        self.dropped += 1

    def on_failure(self) -> None:
        self.failures += 1
        self.failed.set()


def history(name: str, steps: int) -> TrajectoryLine:
    return TrajectoryLine.model_validate(
        {"trajectory_id": name, "task": "t", "steps": [{"action": f"a{number}"} for number in range(steps)]}
    )


def outcome(name: str) -> OutcomeLine:
    return OutcomeLine.model_validate({"trajectory_id": name, "outcome": 1.0})


def lines(directory: Path) -> list[TrajectoryLine | OutcomeLine]:
    return [read_line(line) for path in sorted(directory.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_the_longest_history_within_a_write_and_every_outcome_are_written(tmp_path: Path) -> None:
    told = Told()
    recorder = Recorder(RecordingFiles(tmp_path / "new" / "place", AMPLE), told)
    for line in (history("a", 1), history("a", 3), history("a", 2), history("b", 1)):
        recorder.add(line, 100)
    recorder.add_outcome(outcome("a"), 100)
    recorder.start()
    recorder.close()
    assert lines(tmp_path / "new/place") == [history("a", 3), history("b", 1), outcome("a")]
    assert told.written == [2, 1]
    (path,) = (tmp_path / "new/place").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_small_files_are_put_together_and_large_ones_get_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "PARTS", 3)
    monkeypatch.setattr(files_module, "FILE_BYTES", 60)
    files = RecordingFiles(tmp_path, AMPLE)
    for number in range(10):
        files.append(f"line {number}, of ten bytes more\n".encode())
    files.join()
    found = sorted(tmp_path.iterdir())
    assert len(found) == 4
    assert b"".join(path.read_bytes() for path in found).splitlines() == [
        f"line {number}, of ten bytes more".encode() for number in range(10)
    ]


def test_files_may_be_taken_away_while_more_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "PARTS", 2)
    files = RecordingFiles(tmp_path, AMPLE)
    for number in range(5):
        files.append(f"{number}\n".encode())
        if number % 2 == 0:
            for path in tmp_path.iterdir():
                path.unlink()
    files.join()
    assert list(tmp_path.iterdir()) == []
    files.append(b"5\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"5\n"]


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RecordingFiles(tmp_path, AMPLE)
    files.append(b"whole\n")

    def failing(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="No space left"):
        files.append(b"never\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole\n"]


def test_lines_are_written_once_though_the_disk_has_no_room_to_put_files_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "PARTS", 2)
    room = 8
    write = RecordingFiles._write

    def limited(self: RecordingFiles, path: Path, content: bytes) -> None:
        if len(content) > room:
            raise OSError(28, "No space left on device")
        write(self, path, content)

    monkeypatch.setattr(RecordingFiles, "_write", limited)
    files = RecordingFiles(tmp_path, AMPLE)
    for number in range(5):
        files.append(f"line {number}\n".encode())
    assert len(list(tmp_path.iterdir())) == 5
    room = 100
    files.join()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"".join(f"line {number}\n".encode() for number in range(5))


def test_processes_of_the_same_name_and_number_take_no_file_from_each_other(tmp_path: Path) -> None:
    for number in range(2):  # as in two containers that share a host's name
        RecordingFiles(tmp_path, AMPLE).append(f"{number}\n".encode())
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"0\n", b"1\n"]


def test_a_directory_with_as_many_bytes_as_allowed_gets_no_more(tmp_path: Path) -> None:
    (tmp_path / "of-another-process.jsonl").write_bytes(b"x" * 90)
    files = RecordingFiles(tmp_path, 100)
    files.append(b"ten bytes\n")
    with pytest.raises(DirectoryFull, match="holds 100 bytes, of 100 allowed"):
        files.append(b"!\n")


def test_a_failing_disk_is_told_once_and_loses_nothing_that_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(recorder_module, "SECONDS", 0.01)
    monkeypatch.setattr(recorder_module, "RETRY_SECONDS", 0.01)
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    told = Told()
    recorder = Recorder(RecordingFiles(blocked, AMPLE), told)
    recorder.add(history("a", 2), 100)
    recorder.add_outcome(outcome("a"), 100)
    recorder.start()
    assert told.failed.wait(30)
    with pytest.raises(NotReady, match="outcomes cannot be recorded now"):
        recorder.add_outcome(outcome("b"), 100)
    blocked.unlink()
    assert told.wrote.wait(30)
    recorder.close()
    assert history("a", 2) in lines(blocked)
    assert outcome("a") in lines(blocked)
    messages = [record.message for record in caplog.records if record.name == recorder_module.__name__]
    assert [message.split(",")[0] for message in messages] == [
        "trajectories cannot be recorded",
        "trajectories are recorded again",
    ]


def test_what_is_more_than_may_wait_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "WAITING_BYTES", 250)
    told = Told()
    recorder = Recorder(RecordingFiles(tmp_path, AMPLE), told)
    for name in "abc":
        recorder.add(history(name, 1), 100)
    recorder.add(history("a", 2), 120)  # takes the place of a shorter one
    with pytest.raises(NotReady):
        recorder.add_outcome(outcome("a"), 100)
    recorder.start()
    recorder.close()
    assert lines(tmp_path) == [history("a", 2), history("b", 1)]
    assert told.dropped == 1
