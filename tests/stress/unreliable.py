"""Runs a whole service in this process, on its own thread and event loop, with engines that fail at random."""

import asyncio
import gc
import logging
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final
from unittest.mock import patch

import uvicorn
import uvloop
from fastapi import FastAPI

from service.engine.prefix_cache import PrefixCache
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import load_engine
from testbed.processes import HOST, PATIENCE, wait_until

FAILED_ON_PURPOSE: Final = "batch %s failed"


class Unreliable:
    """Makes every engine that is loaded inside ``loading`` fail at random, as if memory ran out or a kernel broke.

    Holds engines by weak reference, so that those of unloaded models are freed.

    Args:
        share: probability that a layer fails, at which time cached prefixes are locked, split and partly filled.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._share = share
        self.reliable = False
        self.failures: Counter[str] = Counter()
        self.loaded = 0
        self._random = Random(seed)
        self._engines: weakref.WeakSet[PrefixEngine] = weakref.WeakSet()

    @contextmanager
    def loading(self) -> Iterator[None]:
        def load_unreliable(*given: Any, **more: Any) -> PrefixEngine:
            engine = load_engine(*given, **more)
            assert isinstance(engine, PrefixEngine)
            for layer in engine._model.backbone.get_submodule("layers").children():
                layer.register_forward_pre_hook(self._fail_sometimes)
            self._engines.add(engine)
            self.loaded += 1
            return engine

        with patch("service.engine.workers.worker.load_engine", load_unreliable):
            yield

    @property
    def prefix_caches(self) -> list[PrefixCache[Any]]:
        """Prefix caches of the engines that are still in memory."""
        gc.collect()
        return [engine.prefix_cache for engine in self._engines]

    def _fail_sometimes(self, *_: object) -> None:
        if self.reliable or self._random.random() >= self._share:
            return
        kind = self._random.choice((RuntimeError, MemoryError))
        self.failures[kind.__name__] += 1
        raise kind


class Complaints(logging.Handler):
    """Counts logged errors that were not caused on purpose, by logger and message."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.kinds: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg != FAILED_ON_PURPOSE:
            raised = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
            self.kinds[f"{record.name}: {record.msg} {raised}".strip()] += 1

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Replaces the root handlers, which would print thousands of tracebacks of failures on purpose."""
        root = logging.getLogger()
        before = root.handlers[:]
        root.handlers[:] = [self]
        try:
            yield
        finally:
            root.handlers[:] = before


class RunningApp:
    """An application that runs on a thread, its port, and the tasks on its loop."""

    def __init__(self, app: FastAPI) -> None:
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=int(PATIENCE))
        self._server = uvicorn.Server(config)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._thread = threading.Thread(target=self._run, name="service")

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), "the service did not start")
        assert self._server.started, "the service ended at its start"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(2 * PATIENCE)
        self._socket.close()
        assert not self._thread.is_alive(), "the service did not drain"

    def tasks(self) -> Counter[str]:
        """Counts the tasks of its event loop by coroutine, without the task that counts."""
        return asyncio.run_coroutine_threadsafe(_tasks(), self._runner.get_loop()).result(PATIENCE)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._server.serve(sockets=[self._socket]))


@contextmanager
def serving(app: FastAPI) -> Iterator[RunningApp]:
    running = RunningApp(app)
    running.start()
    try:
        yield running
    finally:
        running.stop()


async def _tasks() -> Counter[str]:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in others)
