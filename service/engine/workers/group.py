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
from signal import Signals
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
REAP_SECONDS: Final = 10.0
"""Seconds to wait for the end of a killed process; one that is stuck in a driver may need longer."""


class WorkerGroup:
    """One worker: a process for each of its devices. They start to load at once and end when the group is collected.

    One thread at a time uses the pipes: it calls ``loaded``, ``send`` and ``receive``. Any thread may wait for the
    sentinels and end the processes. The thread at the pipes then finds them closed.

    Args:
        config: settings of the first process; the others differ in their rank.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.name = f"the worker on {'+'.join(config.devices)}"
        self._started = monotonic()
        directory = tempfile.mkdtemp(prefix="agentprm-")
        rendezvous = f"{directory}/file"
        self.load_seconds = 0.0
        """Seconds from the start of the processes until they had loaded."""
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._loading: list[BaseProcess] = []
        # Runs at the latest when this process ends, before it waits for its child processes.
        Finalize(self, _close, (self._pipes, self._loading, directory), exitpriority=0)
        for rank in range(len(config.devices)):
            process, pipe = _start(replace(config, rank=rank, rendezvous=rendezvous))
            self._pipes.append(pipe)
            self._processes.append(process)
            self._loading.append(process)

    @property
    def sentinels(self) -> list[int]:
        """One for each process, ready once that has ended; for ``multiprocessing.connection.wait``."""
        return [process.sentinel for process in self._processes]

    def loaded(self) -> WorkerInfo:
        """Waits until all processes have loaded; returns the properties of the first.

        Raises:
            CheckpointError: the checkpoint cannot be loaded.
            AgentPRMError: a device does not exist, or torchao is missing.
            DeviceLost: a process has ended.
        """
        try:
            info = self._worker_info()
        except DeviceLost as error:
            raise DeviceLost(f"{self.name} has ended while it loaded the model ({self.end()})") from error
        except BaseException:
            self.kill()
            raise
        self._loading.clear()
        self.load_seconds = monotonic() - self._started
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
            DeviceLost: a device has failed for good, or a process has ended. The other processes are ended too.
            RuntimeError: an engine failed; the message includes its traceback.
        """
        replies = self._replies()
        scores = [reply for reply in replies if isinstance(reply, ScoreReply)]
        failures = [reply for reply in replies if isinstance(reply, FailureReply)]
        if failures:
            raise self._failure(failures)
        memory = {device: kinds for reply in scores for device, kinds in reply.gpu_memory.items()}
        return scores[0]._replace(gpu_memory=memory)

    def _failure(self, failures: Sequence[FailureReply]) -> Exception:
        """Returns the error of a failed call; ends the worker unless all of its processes can go on as one."""
        if len(failures) < len(self._pipes):  # those that failed have emptied their prefix caches, the others have not
            return self._lost()
        first = failures[0]
        if first.kind == DeviceLost.__name__:
            return self._lost(f"has failed: {first.message}")
        return OutOfMemory(first.message) if first.kind == OutOfMemory.__name__ else RuntimeError(first.message)

    def _replies(self, straggler_seconds: float = STRAGGLER_SECONDS) -> list[Reply | None]:
        """Returns one reply of each process, by rank; None for one that took too long after another had failed."""
        replies: dict[Connection, Reply] = {}
        deadline = inf
        while len(replies) < len(self._pipes):
            timeout = None if deadline == inf else deadline - monotonic()
            missing = [pipe for pipe in self._pipes if pipe not in replies]
            ready = wait(missing, timeout)
            if not ready:
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

    def _lost(self, reason: str = "has ended") -> DeviceLost:
        """Ends all processes, because a worker cannot go on without one of them; returns the error."""
        for pipe in self._pipes:
            pipe.close()
        self.kill()
        return DeviceLost(f"{self.name} {reason}")

    def kill(self) -> None:
        """Kills all processes; one that waits for another in a process group would not end by itself."""
        _kill(self._processes)

    def end(self) -> str:
        """Kills what is left of the worker, and returns how the process that ended first has ended."""
        first = next((process for process in self._processes if wait([process.sentinel], 0)), self._processes[0])
        first.join(REAP_SECONDS)
        self.kill()
        for process in self._processes:
            process.join(REAP_SECONDS)
        return f"{first.name} {_exit_text(first.exitcode)}"


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


def _exit_text(exitcode: int | None) -> str:
    if exitcode is None:
        return "does not end"
    return f"was ended by {Signals(-exitcode).name}" if exitcode < 0 else f"ended with status {exitcode}"


def _close(pipes: Sequence[Connection], loading: Sequence[BaseProcess], directory: str) -> None:
    """Ends the processes: a loaded one ends when its pipe closes, one that is loading must be killed."""
    for pipe in pipes:
        pipe.close()
    _kill(loading)
    shutil.rmtree(directory, ignore_errors=True)


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
