"""The processes of one worker, seen from the service: started, asked, and ended with whoever holds them."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from time import monotonic
from typing import Final

from agentprm import errors as request_errors
from model_store import errors as checkpoint_errors
from model_store.errors import CheckpointError
from service.engine.contract import DeviceLost, OutOfMemory
from service.engine.workers.worker import Call, Failed, Scored, WorkerConfig, WorkerInfo, run

Reply = WorkerInfo | Scored | Failed

STRAGGLE_SECONDS: Final = 60.0
"""How long the others of a worker may take to answer once one has failed: they may wait for it for ever."""


_RAISED: Final[dict[str, type[Exception]]] = {kind.__name__: kind for kind in (OutOfMemory, DeviceLost)}


class WorkerGroup:
    """One process for each device of a worker; all but the first only help it.

    Args:
        job: what the first process is told; the others differ by their rank.
    """

    def __init__(self, job: WorkerConfig) -> None:
        self.devices = job.devices
        meeting = tempfile.mkdtemp(prefix="agentprm-")
        started = [_start(replace(job, rank=rank, meeting=f"{meeting}/file")) for rank in range(len(job.devices))]
        self._pipes = [pipe for _, pipe in started]
        self._loading = [process for process, _ in started]
        # At the latest when this process ends, before it waits for those that it has started.
        Finalize(self, _end, (self._pipes, self._loading, meeting), exitpriority=0)

    def loaded(self) -> WorkerInfo:
        """What its first process has loaded, once all have.

        Raises:
            CheckpointError: it cannot be loaded.
            AgentPRMError: a device is not there, or the process has ended.
        """
        try:
            facts = self._facts()
        except BaseException:
            _kill(self._loading)
            raise
        self._loading.clear()
        return facts

    def _facts(self) -> WorkerInfo:
        replies = self._replies(straggle_seconds=0.0)
        for reply in replies:
            if isinstance(reply, Failed):
                kind = getattr(request_errors, reply.kind, getattr(checkpoint_errors, reply.kind, CheckpointError))
                raise kind(reply.message)
        facts = replies[0]
        assert isinstance(facts, WorkerInfo)
        return facts

    def ask(self, call: Call) -> None:
        """Sends a call to every process. Raises DeviceLost where one has ended."""
        try:
            for pipe in self._pipes:
                pipe.send(call)
        except OSError as error:
            raise self._lost() from error

    def answer(self) -> Scored:
        """The first process's answer to the call before, once all have given theirs; with the memory of all devices.

        Raises:
            OutOfMemory: one of them lacks room.
            DeviceLost: one of them can compute no more.
            RuntimeError: the engine failed.
        """
        replies = self._replies()
        for reply in replies:
            if isinstance(reply, Failed):
                if None in replies:
                    raise self._lost()
                raise _RAISED.get(reply.kind, RuntimeError)(reply.message)
        scored = replies[0]
        assert isinstance(scored, Scored)
        memory = {
            device: kinds
            for reply in replies
            if isinstance(reply, Scored)
            for device, kinds in reply.gpu_memory.items()
        }
        return scored._replace(gpu_memory=memory)

    def _replies(self, straggle_seconds: float = STRAGGLE_SECONDS) -> list[Reply | None]:
        """One of each process, by rank; None of those that took too long after another had failed."""
        replies: dict[Connection, Reply] = {}
        until = inf
        while len(replies) < len(self._pipes):
            left = None if until == inf else until - monotonic()
            missing = [pipe for pipe in self._pipes if pipe not in replies]
            ready = wait(missing, left)
            if not ready:
                for pipe in self._pipes:
                    pipe.close()
                break
            for pipe in [pipe for pipe in missing if pipe in ready]:
                replies[pipe] = self._reply(pipe)
                if isinstance(replies[pipe], Failed):
                    until = min(until, monotonic() + straggle_seconds)
        return [replies.get(pipe) for pipe in self._pipes]

    def _reply(self, pipe: Connection) -> Reply:
        try:
            reply: Reply = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        return reply

    def _lost(self) -> DeviceLost:
        """To lose one process is to lose all of its worker."""
        for pipe in self._pipes:
            pipe.close()
        return DeviceLost(f"the worker on {'+'.join(self.devices)} has ended")


def _start(job: WorkerConfig) -> tuple[BaseProcess, Connection]:
    context = get_context("spawn")  # a forked process cannot use a device that this one has touched
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(job, theirs), name=f"worker on {job.devices[job.rank]}", daemon=True)
    process.start()
    theirs.close()  # or its end would never be seen here
    return process, ours


def _end(pipes: Sequence[Connection], loading: Sequence[BaseProcess], meeting: str) -> None:
    """A worker's process ends when its pipe does, once it has loaded; before, it does not look at its pipe."""
    for pipe in pipes:
        pipe.close()
    _kill(loading)
    shutil.rmtree(meeting, ignore_errors=True)


def _kill(processes: Sequence[BaseProcess]) -> None:
    """Those that wait for another which has failed would wait for ever."""
    for process in processes:
        process.kill()
