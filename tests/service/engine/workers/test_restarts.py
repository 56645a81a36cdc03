"""Workers that are killed: their work goes to others, they are started again, and nothing is left behind.

Gates hold a restart, so that a test knows what is going on when it kills a process or asks for scores.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.format.store import Store
from service.engine.contract import DeviceLost, Unavailable
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import load_engine
from service.engine.workers import spread_engine, supervisor
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import WorkerInfo
from testbed.processes import wait_until
from tests.service.engine.workers.starting import (
    BUDGET,
    START_SECONDS,
    demo,
    kill,
    processes,
    spread,
    wait_until_running,
    worker_config,
)

BATCH = [[1, 2, 3, 4], [5, 6, 7, 8]]
READS = [[3], [3]]


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    yield
    gc.collect()


@pytest.fixture(scope="module")
def expected() -> list[float]:
    engine = load_engine(demo(), "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    assert isinstance(engine, PrefixEngine)
    return [scores.raw[0] for scores in engine.score(BATCH, READS)]


class HeldRestarts:
    """Holds every restart before its processes have loaded, until the gate opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.groups: list[WorkerGroup] = []
        load = WorkerGroup.loaded

        def held(group: WorkerGroup) -> WorkerInfo:
            self.groups.append(group)
            self.begun.release()
            assert self.gate.wait(START_SECONDS)
            return load(group)

        monkeypatch.setattr(WorkerGroup, "loaded", held)

    def wait_for_one(self) -> None:
        assert self.begun.acquire(timeout=START_SECONDS), "no restart has begun"


def assert_scored(engine: SpreadEngine, expected: list[float]) -> None:
    assert [scores.raw[0] for scores in engine.score(BATCH, READS)] == pytest.approx(expected, abs=1e-5)


def assert_lens_are_exact(engine: SpreadEngine) -> None:
    for length in (3, 5, 9):
        ids = list(range(20, 20 + length))
        [cost] = engine.extend_lens([ids])
        [scored] = engine.score([ids], [[length - 1]])
        assert scored.computed == cost


@pytest.mark.parametrize(
    ("devices", "rank"),
    [(("cpu",), 0), (("cpu", "cpu"), 0), (("cpu", "cpu"), 1)],
    ids=["one process", "first of split layers", "second of split layers"],
)
def test_a_worker_killed_while_idle_is_down_at_once_and_starts_again_with_an_empty_cache(
    devices: tuple[str, ...], rank: int, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spread(devices)
    assert_scored(engine, expected)
    held, first = HeldRestarts(monkeypatch), processes(engine)
    kill(first[rank])
    held.wait_for_one()
    assert (engine.running, engine.down, engine.lost) == (0, 1, False)
    assert not any(process.is_alive() for process in first), "the others of a group must end with it"
    with pytest.raises(Unavailable, match="are being started again") as raised:
        engine.score(BATCH, READS)
    assert raised.value.retry_after > 0
    assert engine.extend_lens(BATCH) == [4, 4]
    held.gate.set()
    wait_until_running(engine, 1)
    assert engine.restarts == 1
    assert engine.used_bytes == 0
    assert engine.extend_lens(BATCH) == [4, 4], "the new process has nothing cached"
    assert_scored(engine, expected)
    assert_lens_are_exact(engine)


def test_a_batch_whose_worker_is_killed_while_it_computes_is_computed_by_another(
    expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spread(("cpu",), ("cpu",))
    victim = processes(engine, 0)[0]
    sent, receive = threading.Event(), WorkerGroup.receive
    monkeypatch.setattr(WorkerGroup, "receive", lambda group: (sent.set(), receive(group))[1])
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGSTOP)  # so that it has a call and does not answer
    with ThreadPoolExecutor(1) as thread:
        scored = thread.submit(engine.score, BATCH, READS)
        assert sent.wait(START_SECONDS)
        kill(victim)
        found = [scores.raw[0] for scores in scored.result(START_SECONDS)]
    assert found == pytest.approx(expected, abs=1e-5)
    wait_until_running(engine, 2)
    for _ in range(3):
        assert_scored(engine, expected)
    assert_lens_are_exact(engine)


def test_a_batch_whose_last_worker_is_killed_is_told_to_come_later(
    expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spread(("cpu", "cpu"))
    sent, receive = threading.Event(), WorkerGroup.receive
    monkeypatch.setattr(WorkerGroup, "receive", lambda group: (sent.set(), receive(group))[1])
    [first, second] = processes(engine)
    assert second.pid is not None
    os.kill(second.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        scored = thread.submit(engine.score, BATCH, READS)
        assert sent.wait(START_SECONDS)
        kill(first)
        with pytest.raises(Unavailable):
            scored.result(START_SECONDS)
    wait_until_running(engine, 1)
    assert_scored(engine, expected)


def test_workers_that_are_killed_together_all_start_again(
    expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spread(("cpu",), ("cpu",))
    held = HeldRestarts(monkeypatch)
    for process in [processes(engine, number)[0] for number in range(2)]:
        kill(process)
    held.wait_for_one()
    held.wait_for_one()
    assert (engine.running, engine.down) == (0, 2)
    held.gate.set()
    wait_until_running(engine, 2)
    assert engine.restarts == 2
    assert_scored(engine, expected)


def test_one_is_killed_while_another_starts_again(expected: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = spread(("cpu",), ("cpu",))
    held = HeldRestarts(monkeypatch)
    kill(processes(engine, 0)[0])
    held.wait_for_one()
    assert_scored(engine, expected)
    kill(processes(engine, 1)[0])
    held.wait_for_one()
    with pytest.raises(Unavailable):
        engine.score(BATCH, READS)
    held.gate.set()
    wait_until_running(engine, 2)
    assert_scored(engine, expected)


def test_a_worker_that_is_killed_during_its_restart_is_tried_once_more(
    expected: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = spread(("cpu",))
    held = HeldRestarts(monkeypatch)
    kill(processes(engine)[0])
    held.wait_for_one()
    kill(held.groups[0]._processes[0])
    held.gate.set()
    held.wait_for_one()
    wait_until_running(engine, 1)
    assert engine.restarts == 1
    assert_scored(engine, expected)
    assert "the worker on cpu has ended (worker on cpu was ended by SIGKILL)" in caplog.text
    assert "could not be started again: the worker on cpu has ended while it loaded the model" in caplog.text


def test_after_the_last_try_the_worker_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = spread(("cpu",))
    engine.score(BATCH, READS)

    def fail(_: WorkerGroup) -> WorkerInfo:
        raise DeviceLost("no memory")

    monkeypatch.setattr(WorkerGroup, "loaded", fail)
    monkeypatch.setattr(supervisor, "TRIES", 2)
    kill(processes(engine)[0])
    wait_until(lambda: engine.lost, "it was not given up")
    with pytest.raises(DeviceLost, match="all workers on cpu have ended and could not be started again"):
        engine.score(BATCH, READS)
    assert (engine.running, engine.down, engine.restarts) == (0, 1, 0)


def test_a_worker_that_scores_after_its_restart_has_all_tries_again(
    expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "TRIES", 1)
    engine = spread(("cpu",))
    for restarts in (1, 2):
        kill(processes(engine)[0])
        wait_until(lambda restarts=restarts: engine.restarts == restarts, "it was not started again")
        assert_scored(engine, expected)
    kill(processes(engine)[0])
    wait_until(lambda: engine.restarts == 3, "it was not started again")
    kill(processes(engine)[0])
    wait_until(lambda: engine.lost, "it has scored nothing since its last try")


def test_a_batch_that_ends_every_worker_is_given_up_before_all_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_engine, "ATTEMPTS", 1)
    engine = spread(("cpu",), ("cpu",))
    send, victims = WorkerGroup.send, []

    def send_and_kill(group: WorkerGroup, call: object) -> None:
        send(group, call)  # type: ignore[arg-type]
        victims.append(group)
        kill(group._processes[0])

    monkeypatch.setattr(WorkerGroup, "send", send_and_kill)
    with pytest.raises(Unavailable):
        engine.score([[1, 2, 3]], [[2]])
    assert len(victims) == 1
    wait_until_running(engine, 2)


def test_an_engine_that_is_dropped_during_a_restart_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    engine = spread(("cpu", "cpu"))
    held = HeldRestarts(monkeypatch)
    kill(processes(engine)[0])
    held.wait_for_one()
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del engine
    gc.collect()
    for process in started:
        process.join(START_SECONDS)
        assert process.exitcode == -signal.SIGKILL
    held.gate.set()
    wait_until(lambda: not named_threads("supervisor"), "a supervisor is left")
    assert set(multiprocessing.active_children()) <= before


def test_a_restart_that_begins_as_the_engine_is_dropped_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is dropped after the delay and before the processes exist."""
    gc.collect()
    before = set(multiprocessing.active_children())
    engine = spread(("cpu",))
    reached, gate = threading.Event(), threading.Event()
    checked = supervisor.refuse_changed

    def held(checkpoint: object) -> None:
        reached.set()
        assert gate.wait(START_SECONDS)
        checked(checkpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(supervisor, "refuse_changed", held)
    kill(processes(engine)[0])
    assert reached.wait(START_SECONDS)
    del engine
    gc.collect()
    gate.set()
    wait_until(lambda: not named_threads("supervisor"), "a supervisor is left")
    assert set(multiprocessing.active_children()) <= before


def test_a_worker_whose_checkpoint_has_changed_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would answer with the scores of another model."""
    monkeypatch.setattr(supervisor, "TRIES", 1)
    store = Store(tmp_path)
    checkpoint = store.publish(demo().path, replace(demo().manifest, version="7"))
    engine = SpreadEngine([WorkerGroup(worker_config("cpu", checkpoint=checkpoint))])
    weights = checkpoint.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    kill(processes(engine)[0])
    wait_until(lambda: engine.lost, "it was not given up")
    assert "has changed since it was published" in caplog.text


def test_a_worker_that_dies_while_it_loads_at_the_start_is_a_failed_start() -> None:
    group = WorkerGroup(worker_config("cpu", "cpu"))
    kill(group._processes[1])
    with pytest.raises(DeviceLost, match=r"the worker on cpu\+cpu has ended while it loaded the model \(.* by SIGKILL"):
        SpreadEngine([group])
    assert not any(process.is_alive() for process in group._processes)


def named_threads(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
