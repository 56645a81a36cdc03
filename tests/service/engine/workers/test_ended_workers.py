"""Workers that do not come back: given up, dropped with their engine, or ended while they loaded."""

import gc
import multiprocessing
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.format.store import Checkpoint, Store, refuse_changed
from service.engine.contract import DeviceLost
from service.engine.workers import supervisor
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import WorkerInfo
from testbed.processes import wait_until
from tests.service.engine.workers.starting import (
    START_SECONDS,
    HeldRestarts,
    demo,
    kill,
    processes,
    spread,
    worker_config,
)


def test_after_the_last_try_the_worker_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = spread(("cpu",))
    engine.score([[1, 2]], [[1]])

    def fail(_: WorkerGroup) -> WorkerInfo:
        raise DeviceLost("no memory")

    monkeypatch.setattr(WorkerGroup, "loaded", fail)
    monkeypatch.setattr(supervisor, "TRIES", 2)
    kill(processes(engine)[0])
    wait_until(lambda: engine.lost, "it was not given up")
    with pytest.raises(DeviceLost, match="all workers on cpu have ended and could not be started again"):
        engine.score([[1, 2]], [[1]])
    assert (engine.running, engine.down, engine.restarts) == (0, 1, 0)


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

    def held(checkpoint: Checkpoint) -> None:
        reached.set()
        assert gate.wait(START_SECONDS)
        refuse_changed(checkpoint)

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
