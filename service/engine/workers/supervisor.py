"""Keeps one worker running: watches its processes, and starts the worker again when one of them has ended.

A supervisor has a thread of its own, which starts and ends processes. It publishes a worker once that has loaded, and
uses its pipes no more from then on. So the engine's thread has the pipes to itself and finds them closed when a
process has ended. It can be slower or faster to notice than the supervisor.

    running ──a process ends──> down ──delay──> loading ──loaded──> running
                                  ^                │
                                  └────failed──────┘   after the last try: given up
"""

import logging
from multiprocessing import Pipe
from multiprocessing.connection import wait
from threading import Thread
from time import monotonic
from typing import Final

from model_store.format.store import refuse_changed
from service.engine.workers.group import WorkerGroup
from service.engine.workers.running_worker import RunningWorker

logger = logging.getLogger(__name__)

TRIES: Final = 6
"""Tries to start a worker again, in a row. One that scores a call afterwards has all of them again."""
FIRST_DELAY: Final = 0.5
"""Seconds before the first try. Each further try waits twice as long; all of them together wait half a minute."""


class Supervisor:
    """Watches one worker until ``close``. Any thread may read its attributes and call its methods.

    Args:
        worker: the worker, which has loaded.
    """

    def __init__(self, worker: RunningWorker) -> None:
        self.worker: RunningWorker | None = worker
        """The worker that can take calls; None while there is none."""
        self.restarts = 0
        """Number of times that the worker was started again."""
        self.given_up = False
        """True once it is not started again any more."""
        self.load_seconds = worker.group.load_seconds
        """Seconds that the worker took to load the last time."""
        self._config = worker.group.config
        self._name = worker.group.name
        self._failed_tries = 0
        self._loading: WorkerGroup | None = None
        self._closed, self._open_end = Pipe(duplex=False)  # a pipe, because the thread waits for it and for sentinels
        Thread(target=self._run, args=(worker,), name=f"supervisor of {self._name}", daemon=True).start()

    def close(self) -> None:
        """Ends the restarts, and a process that loads. Does not wait for the thread. May be called twice."""
        self._open_end.close()
        if (loading := self._loading) is not None:
            loading.kill()

    def _run(self, worker: RunningWorker | None) -> None:
        while worker is not None and self._has_ended(worker):
            self.worker = None
            ended = monotonic()
            logger.error("%s has ended (%s)", self._name, worker.group.end())
            if worker.proven:
                self._failed_tries = 0
            worker = self._start_again()
            if worker is not None:
                self.load_seconds = worker.group.load_seconds
                self.restarts += 1
                self.worker = worker
                logger.warning("%s runs again after %.1f s", self._name, monotonic() - ended)

    def _has_ended(self, worker: RunningWorker) -> bool:
        """Waits until a process of the worker has ended; returns False if ``close`` came first."""
        return self._closed not in wait([*worker.group.sentinels, self._closed])

    def _start_again(self) -> RunningWorker | None:
        """Tries until the worker has loaded; returns None after ``close`` or the last try."""
        while self._failed_tries < TRIES:
            delay = FIRST_DELAY * 2**self._failed_tries
            self._failed_tries += 1
            if wait([self._closed], delay):
                return None
            logger.warning("%s is started again: try %d of %d", self._name, self._failed_tries, TRIES)
            try:
                return self._load()
            except Exception as error:  # noqa: BLE001  (the next try may succeed, whatever the error)
                if not wait([self._closed], 0):
                    logger.error("%s could not be started again: %s", self._name, error)  # noqa: TRY400
        self.given_up = True
        logger.critical("%s is given up after %d tries", self._name, TRIES)
        return None

    def _load(self) -> RunningWorker:
        refuse_changed(self._config.checkpoint)  # others would get scores of another model under the same digest
        group = WorkerGroup(self._config)
        self._loading = group
        try:
            if wait([self._closed], 0):  # ``close`` may have come before there was a process to kill
                group.kill()
            return RunningWorker(group, group.loaded())
        finally:
            self._loading = None
