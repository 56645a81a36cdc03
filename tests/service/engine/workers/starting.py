"""Engines over worker processes with the bundled checkpoint, and those processes."""

import os
import signal
import threading
from multiprocessing.process import BaseProcess
from typing import Literal

import pytest

from model_store.format.store import Checkpoint, Store
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import WorkerConfig, WorkerInfo
from service.settings import CHECKPOINTS
from testbed.processes import wait_until

BUDGET = 400 * 1000
"""Bytes of a few hundred tokens of the bundled checkpoint, so that much is evicted."""
START_SECONDS = 90.0
"""Seconds for a worker to start; only a test that fails waits so long."""


def demo() -> Checkpoint:
    return Store(CHECKPOINTS).resolve("demo")


def worker_config(
    *devices: str,
    checkpoint: Checkpoint | None = None,
    prefix_cache_bytes: int = BUDGET,
    weights: Literal["auto", "int8"] = "auto",
) -> WorkerConfig:
    return WorkerConfig(
        checkpoint=checkpoint or demo(),
        devices=devices,
        dtype="float32",
        weights=weights,
        prefix_cache_bytes=prefix_cache_bytes,
        cpu_threads=1,
        log_level="error",
        log_format="text",
    )


def spread(*workers: tuple[str, ...], prefix_cache_bytes: int = BUDGET) -> SpreadEngine:
    groups = [WorkerGroup(worker_config(*devices, prefix_cache_bytes=prefix_cache_bytes)) for devices in workers]
    return SpreadEngine(groups)


def processes(engine: SpreadEngine, number: int = 0) -> list[BaseProcess]:
    """Returns the processes of a running worker, by rank."""
    worker = engine._supervisors[number].worker
    assert worker is not None, "it does not run"
    return worker.group._processes


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


def wait_until_running(engine: SpreadEngine, workers: int) -> None:
    wait_until(lambda: engine.running == workers, f"{workers} workers did not run", START_SECONDS)


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
