"""Signals before the service is ready: the process ends at once, with one sentence and without its workers."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.engine.workers import group
from service.settings import CHECKPOINTS
from testbed.processes import PATIENCE, ROOT, START_SECONDS, wait_until

ENDS = [
    (signal.SIGINT, 130, "agentprm: interrupted before it was ready\n"),
    (signal.SIGTERM, 0, "agentprm: stopped before it was ready\n"),
]


@contextmanager
def held_at(store: Path, file: Path) -> Iterator[subprocess.Popen[str]]:
    """Starts the service over a store in which ``file`` is a pipe; yields once the service waits for its content."""
    os.mkfifo(file)
    environment = {**os.environ, "AGENTPRM_MODEL_STORE": str(store), "AGENTPRM_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: is_opened(file), "the service did not read the store", START_SECONDS)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def is_opened(pipe: Path) -> bool:
    try:
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # stays open, so that the reader goes on waiting
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody reads
            return False
        raise
    return True


@pytest.mark.timeout(300)  # the start of a process is slow on a busy machine
@pytest.mark.parametrize("file", ["aliases.json", "textcraft-demo/1/added"], ids=["before torch", "while loading"])
@pytest.mark.parametrize(("number", "code", "sentence"), ENDS)
def test_a_signal_before_the_service_is_ready_ends_it_in_one_sentence(
    number: signal.Signals, code: int, sentence: str, file: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(CHECKPOINTS, store, ignore=shutil.ignore_patterns("aliases.json"))
    if file != "aliases.json":
        shutil.copy(CHECKPOINTS / "aliases.json", store)
    with held_at(store, store / file) as process:
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert process.stderr.read() == sentence


def test_the_workers_end_with_the_service() -> None:
    """This process reads their output until the last of them has closed it."""
    script = (
        "import multiprocessing, signal; from service.__main__ import end_process\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('spawn').Process(target=signal.pause).start()\n"
        "    end_process(signal.SIGTERM, None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "agentprm: stopped before it was ready\n")


def test_a_worker_never_sees_the_signals_of_a_terminal() -> None:
    script = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with group._signals_blocked():
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert set(map(int, done.stdout.split())) == before | {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
