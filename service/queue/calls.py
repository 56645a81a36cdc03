"""A queue of calls to a server: a limited number runs at once, in fair turns, and equal ones run only once.

A request is admitted whole or refused. Its calls wait in a ``FairQueue``, as token sequences do, for a place to run. A
call that another request has running or answered already takes no place. A call that nobody waits for any more is
cancelled.
"""

import asyncio
import logging
import secrets
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, NamedTuple, TypeVar

from agentprm.errors import InternalError, NotReady, RequestError, UpstreamFailed
from service.queue.admission import Admission
from service.queue.fair_queue import Entry, FairQueue, Priority
from service.queue.terms import Terms

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")
R = TypeVar("R")


class Answers(NamedTuple, Generic[K, R]):
    """Results by key. ``shared``: keys that another request called for. ``queue``: seconds to its first call.

    ``failed``: the errors of calls that got no usable answer; empty unless the request's items may fail alone.
    """

    results: dict[K, R]
    failed: dict[K, RequestError]
    shared: set[K]
    queue: float
    forward: float


@dataclass(slots=True, eq=False, kw_only=True)
class _Request(Entry, Generic[K, W, R]):
    work: list[tuple[K, W]]
    arrived: float
    answered: asyncio.Future[None]
    per_item: bool
    results: dict[K, R] = field(default_factory=dict)
    failed: dict[K, RequestError] = field(default_factory=dict)
    shared: set[K] = field(default_factory=set)
    began: float = float("inf")

    def has(self, key: K) -> bool:
        return key in self.results or key in self.failed

    def receive(self, key: K, result: R, began: float, *, shared: bool) -> None:
        if key in self.failed:
            return  # another request's later call
        self.results[key] = result
        self.began = min(self.began, max(began, self.arrived))
        if shared:
            self.shared.add(key)
        self._answer_if_complete()

    def fail_call(self, key: K, error: RequestError) -> bool:
        """Takes the error of one call. Returns whether it ends the whole request."""
        if not (self.per_item and isinstance(error, UpstreamFailed)):
            self.fail(error)
            return True
        if key not in self.results:
            self.failed[key] = error
        self._answer_if_complete()
        return False

    def fail(self, error: RequestError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)

    def _answer_if_complete(self) -> None:
        if len(self.results) + len(self.failed) == len(self.work) and not self.answered.done():
            self.answered.set_result(None)


class CallQueue(Generic[K, W, R]):
    """Does work by key, one call each.

    Args:
        call: does one piece of work; may raise RequestError.
        max_concurrent: most calls that may run.
        max_waiting: most calls that may wait; over it requests are refused.
    """

    def __init__(self, call: Callable[[W], Awaitable[R]], *, max_concurrent: int, max_waiting: int) -> None:
        self._call = call
        self._max_concurrent = max_concurrent
        self._queue: FairQueue[_Request[K, W, R]] = FairQueue(lambda *_: 1)
        self._admission = Admission(self._queue, max_waiting, lambda request, error: request.fail(error), "calls")
        self._waiting: defaultdict[K, set[_Request[K, W, R]]] = defaultdict(set)
        self._running: dict[K, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = False

    @property
    def waiting(self) -> int:
        return self._queue.tokens

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while ``submit`` would. Call it before a request has cost anything."""
        self._admission.refuse_if_full(caller, priority)

    def refuse_unless_open(self) -> None:
        if not self._open:
            raise NotReady("the service is starting or shutting down", retry_after=1)

    def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        """Refuses new requests and answers those that were admitted."""
        self._open = False
        await self._idle.wait()

    async def submit(self, work: Mapping[K, W], terms: Terms) -> Answers[K, R]:
        """Returns the results of one request. The caller cancels at the deadline.

        Raises:
            TooLong, Overloaded: more calls than may wait, alone or together with those that do. Overloaded also while
                it waits, if a caller that holds less pushes it out.
            DeadlineExceeded: its turn is expected to come after its deadline.
            NotReady: not open.
            RequestError: one of its calls raised it. With ``terms.per_item`` an UpstreamFailed is that call's alone.
        """
        self.refuse_unless_open()
        loop = asyncio.get_running_loop()
        self._admission.admit(len(work), terms, loop.time())
        request = _Request[K, W, R](
            costs=[1] * len(work),
            caller=terms.caller,
            priority=terms.priority,
            work=list(work.items()),
            arrived=perf_counter(),
            answered=loop.create_future(),
            per_item=terms.per_item,
        )
        self._enter(request)
        try:
            await request.answered
        finally:
            self._leave(request)
        began = min(request.began, perf_counter())
        return Answers(request.results, request.failed, request.shared, began - request.arrived, perf_counter() - began)

    def _enter(self, request: _Request[K, W, R]) -> None:
        self._queue.add(request)
        for key, _ in request.work:
            self._waiting[key].add(request)
        self._idle.clear()
        self._start_calls()

    def _leave(self, request: _Request[K, W, R]) -> None:
        """Takes a request out, and cancels its calls that no other request waits for."""
        self._queue.discard(request)
        for key, _ in request.work:
            self._waiting[key].discard(request)
            if not self._waiting[key]:
                del self._waiting[key]
                if key in self._running:
                    self._running.pop(key).cancel()
        self._set_idle_if_done()

    def _start_calls(self) -> None:
        while len(self._tasks) < self._max_concurrent and self._queue:
            for part in self._queue.take(1):
                request, (key, work) = part.entry, part.entry.work[part.index]
                if not request.has(key) and key not in self._running and not request.answered.done():
                    task = asyncio.create_task(self._run(key, work, request), name="call")
                    self._running[key] = task
                    self._tasks.add(task)
                    task.add_done_callback(self._ended)

    async def _run(self, key: K, work: W, first: _Request[K, W, R]) -> None:
        began = perf_counter()
        try:
            result = await self._call(work)
        except RequestError as error:
            self._fail(key, error)
        except Exception as error:  # noqa: BLE001  (all that wait get it)
            self._fail(key, _failure(error))
        else:
            self._running.pop(key, None)
            self._admission.rate.record(1, (perf_counter() - began) / self._max_concurrent)
            for request in list(self._waiting.get(key, ())):
                request.receive(key, result, began, shared=request is not first)

    def _fail(self, key: K, error: RequestError) -> None:
        self._running.pop(key, None)
        for request in list(self._waiting.get(key, ())):
            if request.fail_call(key, error):
                self._queue.discard(request)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_calls()
        self._set_idle_if_done()

    def _set_idle_if_done(self) -> None:
        if not self._tasks and not self._queue and not self._waiting:
            self._idle.set()


def _failure(error: Exception) -> InternalError:
    """Logs a bug. Only the frames, not the message: it may quote an agent's text."""
    failure = InternalError("a call failed", details={"id": secrets.token_hex(8)})
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("call %s: %s. This is a bug\n%s", failure.details["id"], type(error).__name__, frames)
    return failure
