"""The service's side of one worker: starts its processes, sends calls, receives replies, and ends the processes."""

import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from time import monotonic
from typing import Final

from agentprm import errors as request_errors
from model_store import errors as checkpoint_errors
from model_store.errors import CheckpointError
from service.engine.contract import DeviceLost, OutOfMemory
from service.engine.workers.worker import Call, FailureReply, ScoreReply, WorkerConfig, WorkerInfo, run

Reply = WorkerInfo | ScoreReply | FailureReply

STRAGGLER_SECONDS: Final = 60.0
"""Seconds to wait for the other processes of a worker once one has failed: they may be blocked on it for ever."""

_ERRORS: Final[dict[str, type[Exception]]] = {error.__name__: error for error in (OutOfMemory, DeviceLost)}


class WorkerGroup:
    """One worker: a process for each of its devices. They start to load at once and end when the group is collected.

    One thread at a time calls its methods.

    Args:
        config: settings of the first process; the others differ in their rank.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.devices = config.devices
        directory = tempfile.mkdtemp(prefix="agentprm-")
        rendezvous = f"{directory}/file"
        started = [_start(replace(config, rank=rank, rendezvous=rendezvous)) for rank in range(len(config.devices))]
        self._pipes = [pipe for _, pipe in started]
        self._loading = [process for process, _ in started]
        # Runs at the latest when this process ends, before it waits for its child processes.
        Finalize(self, _close, (self._pipes, self._loading, directory), exitpriority=0)

    def loaded(self) -> WorkerInfo:
        """Waits until all processes have loaded; returns the properties of the first.

        Raises:
            CheckpointError: the checkpoint cannot be loaded.
            AgentPRMError: a device does not exist, or torchao is missing.
            DeviceLost: a process has ended.
        """
        try:
            info = self._worker_info()
        except BaseException:
            _kill(self._loading)
            raise
        self._loading.clear()
        return info

    def _worker_info(self) -> WorkerInfo:
        replies = self._replies(straggler_seconds=0.0)
        for reply in replies:
            if isinstance(reply, FailureReply):
                error = getattr(request_errors, reply.kind, getattr(checkpoint_errors, reply.kind, CheckpointError))
                raise error(reply.message)
        info = replies[0]
        assert isinstance(info, WorkerInfo)
        return info

    def send(self, call: Call) -> None:
        """Sends a call to every process. Each call is followed by one ``receive``.

        Raises:
            DeviceLost: a process has ended.
        """
        try:
            for pipe in self._pipes:
                pipe.send(call)
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> ScoreReply:
        """Waits for every process's reply to the last call; returns the first's, with the memory of all devices.

        Raises:
            OutOfMemory: the batch does not fit into the memory of a device.
            DeviceLost: a device has failed for good, or a process has ended.
            RuntimeError: an engine failed; the message includes its traceback.
        """
        replies = self._replies()
        for reply in replies:
            if isinstance(reply, FailureReply):
                if None in replies:
                    raise self._lost()
                raise _ERRORS.get(reply.kind, RuntimeError)(reply.message)
        first = replies[0]
        assert isinstance(first, ScoreReply)
        memory = {
            device: kinds
            for reply in replies
            if isinstance(reply, ScoreReply)
            for device, kinds in reply.gpu_memory.items()
        }
        return first._replace(gpu_memory=memory)

    def _replies(self, straggler_seconds: float = STRAGGLER_SECONDS) -> list[Reply | None]:
        """Returns one reply of each process, by rank; None for one that took too long after another had failed."""
        replies: dict[Connection, Reply] = {}
        deadline = inf
        while len(replies) < len(self._pipes):
            timeout = None if deadline == inf else deadline - monotonic()
            missing = [pipe for pipe in self._pipes if pipe not in replies]
            ready = wait(missing, timeout)
            if not ready:
                for pipe in self._pipes:
                    pipe.close()
                break
            for pipe in [pipe for pipe in missing if pipe in ready]:
                replies[pipe] = self._reply(pipe)
                if isinstance(replies[pipe], FailureReply):
                    deadline = min(deadline, monotonic() + straggler_seconds)
        return [replies.get(pipe) for pipe in self._pipes]

    def _reply(self, pipe: Connection) -> Reply:
        try:
            reply: Reply = pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        return reply

    def _lost(self) -> DeviceLost:
        """Closes all pipes, because a worker cannot go on without one of its processes; returns the error."""
        for pipe in self._pipes:
            pipe.close()
        return DeviceLost(f"the worker on {'+'.join(self.devices)} has ended")


def _start(config: WorkerConfig) -> tuple[BaseProcess, Connection]:
    context = get_context("spawn")  # a forked process cannot use a device that this process has initialised
    pipe, child_pipe = context.Pipe()
    name = f"worker on {config.devices[config.rank]}"
    process = context.Process(target=run, args=(config, child_pipe), name=name, daemon=True)
    with _signals_blocked():
        process.start()
    child_pipe.close()  # with a copy open here, the end of the child would not close the pipe
    return process, pipe


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks signals in this thread: a process that starts meanwhile inherits that, and never sees them.

    A terminal sends Ctrl-C to every process. Only the service acts on it.
    """
    resource_tracker.ensure_running()  # its start would end the blocking
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _close(pipes: Sequence[Connection], loading: Sequence[BaseProcess], directory: str) -> None:
    """Ends the processes: a loaded one ends when its pipe closes, one that is loading must be killed."""
    for pipe in pipes:
        pipe.close()
    _kill(loading)
    shutil.rmtree(directory, ignore_errors=True)


def _kill(processes: Sequence[BaseProcess]) -> None:
    """Kills processes; one that waits for another in a process group would not end by itself."""
    for process in processes:
        process.kill()
