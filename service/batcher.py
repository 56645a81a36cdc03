"""From many requests to few forwards: admit, wait, form a batch, run it, answer.

One loop task per model, woken by an event. A request is admitted whole or refused; its sequences may be spread over
several batches and share them with other requests. Knows no text and no torch: the engine is anything that scores.
"""

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, NamedTuple, Protocol

from agentprm.errors import DeadlineExceeded, InternalError, NotReady, Overloaded, RequestError

logger = logging.getLogger(__name__)

_DECAY: Final = 0.9  # of what is remembered of the drain rate, per batch


class Engine(Protocol):
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        """Raw scores of each sequence at its read positions, in the caller's order."""
        ...


class Answer(NamedTuple):
    """Raw scores of a request, and the seconds it waited and was computed."""

    raw: list[list[float]]
    queue: float
    forward: float


class Batch(NamedTuple):
    """What one forward cost."""

    sequences: int
    tokens: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Request:
    """A queue entry with its own answer channel; sequences before ``taken`` have left the queue."""

    token_ids: Sequence[Sequence[int]]
    reads: Sequence[Sequence[int]]
    deadline: float | None
    arrived: float
    answered: asyncio.Future[None]
    waiting_tokens: int
    raw: list[list[float]]
    taken: int = 0
    missing: int = field(init=False)
    forward: float = 0.0

    def __post_init__(self) -> None:
        self.missing = len(self.token_ids)


@dataclass(frozen=True, slots=True)
class _Place:
    """One sequence of a batch: which of whose."""

    request: _Request
    index: int

    @property
    def token_ids(self) -> Sequence[int]:
        return self.request.token_ids[self.index]

    @property
    def reads(self) -> Sequence[int]:
        return self.request.reads[self.index]


class Batcher:
    """Feeds one engine from one queue, on one thread that it may share with other batchers."""

    def __init__(
        self,
        engine: Engine,
        thread: Executor,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        max_wait: float = 0.0,
        on_batch: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._max_wait = max_wait
        self._on_batch = on_batch
        self._queue: deque[_Request] = deque()
        self._unanswered: set[_Request] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._drained_tokens = self._drained_seconds = 0.0
        self.queued_tokens = 0

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="batcher")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Refuses new requests, answers those admitted, ends the loop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def submit(
        self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], deadline: float | None = None
    ) -> Answer:
        """Scores one request. Cancelling the call takes what has not been computed out of the queue.

        Raises:
            Overloaded: too many tokens wait already.
            NotReady: not started, closing, or the loop is dead.
            DeadlineExceeded: ``deadline`` (loop time) came before the request's turn.
            InternalError: the engine failed.
        """
        assert token_ids, "a request without sequences has nothing to wait for"
        loop = asyncio.get_running_loop()
        tokens = sum(map(len, token_ids))
        self._admit(tokens)
        request = _Request(
            token_ids, reads, deadline, loop.time(), loop.create_future(), tokens, raw=[[] for _ in token_ids]
        )
        self._queue.append(request)
        self._unanswered.add(request)
        self.queued_tokens += tokens
        self._wake.set()
        try:
            await request.answered
        finally:
            self._leave_queue(request)
            self._unanswered.discard(request)
        return Answer(request.raw, max(0.0, loop.time() - request.arrived - request.forward), request.forward)

    def refuse_unless_open(self) -> None:
        """Raises NotReady where ``submit`` would, before a request costs anything."""
        if self._closing:
            raise NotReady("the service is shutting down", retry_after=1)
        if not self.alive:
            raise NotReady("the batcher is not running")

    def _admit(self, tokens: int) -> None:
        self.refuse_unless_open()
        over = self.queued_tokens + tokens - self._max_queue_tokens
        # An empty queue takes a request of any size: one over the bound would otherwise be refused for ever.
        if self.queued_tokens and over > 0:
            raise Overloaded(
                f"{self.queued_tokens} tokens wait already and {tokens} more would exceed {self._max_queue_tokens}",
                details={"queued_tokens": self.queued_tokens, "tokens": tokens, "limit": self._max_queue_tokens},
                retry_after=self._seconds_to_drain(min(over, self.queued_tokens)),
            )

    def _seconds_to_drain(self, tokens: int) -> float:
        return tokens * self._drained_seconds / self._drained_tokens if self._drained_tokens else 1.0

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._max_wait:
                await self._fill()
            if batch := self._form():
                await self._forward(batch)

    async def _fill(self) -> None:
        """Waits for a full batch, but no longer than ``max_wait`` after the oldest request came."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._queue[0].arrived + self._max_wait):
                while self.queued_tokens < self._max_batch_tokens and not self._closing:
                    self._wake.clear()
                    await self._wake.wait()

    def _form(self) -> list[_Place]:
        """The next sequences in order of arrival, up to the budget; one over the budget goes alone.

        Formed only when the engine is free, so that whoever gave up or ran out of time until now costs nothing.
        """
        batch: list[_Place] = []
        tokens = 0
        now = asyncio.get_running_loop().time()
        while self._queue:
            request = self._queue[0]
            if request.deadline is not None and now >= request.deadline:
                self._fail(request, DeadlineExceeded("the deadline passed while the request was waiting"))
            while not request.answered.done() and request.taken < len(request.token_ids):
                cost = len(request.token_ids[request.taken])
                if batch and tokens + cost > self._max_batch_tokens:
                    return batch
                batch.append(_Place(request, request.taken))
                tokens += cost
                request.taken += 1
                request.waiting_tokens -= cost
                self.queued_tokens -= cost
            self._queue.popleft()
        return batch

    async def _forward(self, batch: list[_Place]) -> None:
        token_ids, reads = [place.token_ids for place in batch], [place.reads for place in batch]
        try:
            scores, seconds = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._timed_score, token_ids, reads
            )
        except Exception:
            failure = _failure("the engine failed")
            logger.exception("batch %s failed", failure.details["id"])
            for place in batch:
                self._fail(place.request, failure)
            return
        self._record(Batch(len(batch), sum(map(len, token_ids)), seconds))
        for request in {place.request for place in batch}:
            request.forward += seconds
        for place, raw in zip(batch, scores, strict=True):
            self._deliver(place, raw)

    def _timed_score(
        self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]
    ) -> tuple[list[list[float]], float]:
        started = perf_counter()
        scores = self._engine.score(token_ids, reads)
        if len(scores) != len(token_ids):
            raise RuntimeError(f"{len(scores)} results for {len(token_ids)} sequences. This is a bug of the engine")
        return scores, perf_counter() - started

    def _record(self, batch: Batch) -> None:
        self._drained_tokens = _DECAY * self._drained_tokens + batch.tokens
        self._drained_seconds = _DECAY * self._drained_seconds + batch.seconds
        self._on_batch(batch)

    def _deliver(self, place: _Place, raw: list[float]) -> None:
        request = place.request
        if len(raw) != len(place.reads) or not all(map(math.isfinite, raw)):
            failure = _failure("the engine gave no finite score for each step")
            logger.error("request %s: %s for %d reads. This is a bug", failure.details["id"], raw, len(place.reads))
            self._fail(request, failure)
            return
        request.raw[place.index] = raw
        request.missing -= 1
        if not request.missing and not request.answered.done():
            request.answered.set_result(None)

    def _fail(self, request: _Request, error: RequestError) -> None:
        self._leave_queue(request)
        if not request.answered.done():
            request.answered.set_exception(error)

    def _leave_queue(self, request: _Request) -> None:
        """Gives its tokens back at once; the entry itself is dropped when the next batch is formed."""
        self.queued_tokens -= request.waiting_tokens
        request.waiting_tokens = 0

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The loop is over: after ``close`` nobody waits; otherwise nobody may wait for ever."""
        if not self._unanswered:
            return
        failure = _failure("the batcher ended")
        error = None if task.cancelled() else task.exception()
        logger.critical(
            "batcher ended with requests waiting (%s). This is a bug", failure.details["id"], exc_info=error
        )
        for request in self._unanswered:
            self._fail(request, failure)


def _failure(message: str) -> InternalError:
    return InternalError(message, details={"id": secrets.token_hex(8)})
