"""Workers that are killed: their work goes to others, they are started again, and nothing is left behind.

Gates hold a restart, so that a test knows what is going on when it kills a process or asks for scores.
"""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from service.engine.contract import Unavailable
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import load_engine
from service.engine.workers import spread_engine, supervisor
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import ScoreReply
from testbed.processes import wait_until
from tests.service.engine.workers.starting import (
    BUDGET,
    START_SECONDS,
    HeldRestarts,
    demo,
    kill,
    processes,
    spread,
    wait_until_running,
)

BATCH = [[1, 2, 3, 4], [5, 6, 7, 8]]
READS = [[3], [3]]


@pytest.fixture(scope="module")
def expected() -> list[float]:
    engine = load_engine(demo(), "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    assert isinstance(engine, PrefixEngine)
    return [scores.raw[0] for scores in engine.score(BATCH, READS)]


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
    [
        (("cpu",), 0),
        pytest.param(("cpu", "cpu"), 0, marks=pytest.mark.slow),
        pytest.param(("cpu", "cpu"), 1, marks=pytest.mark.slow),
    ],
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
    sent = noted_receive(monkeypatch)
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
    sent = noted_receive(monkeypatch)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_worker_that_scores_after_its_restart_has_all_tries_again(
    expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "TRIES", 1)
    engine = spread(("cpu",))
    for restarts in (1, 2):
        kill(processes(engine)[0])
        wait_until(partial(has_restarts, engine, restarts), "it was not started again", START_SECONDS)
        assert_scored(engine, expected)
    kill(processes(engine)[0])
    wait_until(partial(has_restarts, engine, 3), "it was not started again", START_SECONDS)
    kill(processes(engine)[0])
    wait_until(lambda: engine.lost, "it has scored nothing since its last try")


@pytest.mark.slow
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


def has_restarts(engine: SpreadEngine, restarts: int) -> bool:
    return engine.restarts == restarts


def noted_receive(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Returns an event that is set once the engine waits for a worker's reply."""
    waits, receive = threading.Event(), WorkerGroup.receive

    def note_and_receive(group: WorkerGroup) -> ScoreReply:
        waits.set()
        return receive(group)

    monkeypatch.setattr(WorkerGroup, "receive", note_and_receive)
    return waits
