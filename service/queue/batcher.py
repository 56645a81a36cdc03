"""Turns many requests into few forwards: admit, wait, form a batch, run it, answer.

Each model has one loop task, woken by an event. A request is admitted whole or refused. Its sequences may be spread
over several batches, which they share with other requests. Knows no text and no torch: any ``Engine`` will do.

All costs are tokens still to be computed. A sequence that costs more than a batch may is computed in pieces, so that
others are computed in between. The engine gets its first tokens without reads, and finds them in its prefix cache when
the next piece comes.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from time import perf_counter

from agentprm.errors import InternalError, NotReady, RequestError, TooLong
from service.engine.contract import DeviceLost, Engine, OutOfMemory, Sequences, SequenceScores, Unavailable
from service.queue.admission import Admission
from service.queue.fair_queue import FairQueue, Part, Priority
from service.queue.observer import BatchObserver
from service.queue.terms import Terms
from service.queue.work import Answer, Batch, QueuedRequest, Waiters, Work, group_equal

logger = logging.getLogger(__name__)


class Batcher:
    """Feeds one engine from one queue, on one thread that it may share with other batchers.

    Args:
        engine: scores token ids.
        thread: runs the engine.
        max_batch_tokens: most tokens that a forward computes; only a sequence that cannot be cut may exceed it.
        max_queue_tokens: most tokens that may wait; over it requests are refused.
        max_wait: seconds that a request may wait for others to fill its batch.
        in_pieces: True if the engine keeps what it has computed, so that a long sequence can be computed in pieces.
        observer: receives every forward, and the number of scores that are not finite.
    """

    def __init__(
        self,
        engine: Engine,
        thread: Executor,
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        max_wait: float = 0.0,
        in_pieces: bool = True,
        observer: BatchObserver,
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._max_batch_tokens = max_batch_tokens
        self._max_wait = max_wait
        self._in_pieces = in_pieces
        self._observer = observer
        self._queue: FairQueue[QueuedRequest] = FairQueue(self._cost_now)
        self._admission = Admission(self._queue, max_queue_tokens, self._fail)
        self._unanswered: set[QueuedRequest] = set()
        self._waiters = Waiters()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def queued_tokens(self) -> int:
        return self._queue.tokens

    @property
    def queued_sequences(self) -> int:
        return self._queue.sequences

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="batcher")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Refuses new requests, answers those admitted, ends the loop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def prepare(self, token_ids: Sequences, reads: Sequences, keys: Sequence[Hashable]) -> Work:
        """Prepares what ``submit`` takes. Callable from any thread, so that the event loop need not compare tokens."""
        return Work(token_ids, reads, keys, [max(1, cost) for cost in self._engine.extend_lens(token_ids)])

    async def submit(self, work: Work, terms: Terms) -> Answer:
        """Scores one request. Cancelling the call takes what has not been computed out of the queue.

        The deadline is checked once, before the request waits. The caller cancels when it passes.

        Raises:
            TooLong: alone it costs more than may ever wait, or it does not fit into the device's memory.
            Overloaded: too many tokens wait already, or it was pushed out by a caller that holds less.
            DeadlineExceeded: its turn is expected to come after its deadline.
            NotReady: the batcher is not started, is closing, its loop is dead, or the engine is not available now.
            InternalError: the engine failed.
        """
        assert work.token_ids, "a request without sequences has nothing to wait for"
        loop = asyncio.get_running_loop()
        self.refuse_unless_open()
        self._admission.admit(sum(work.costs), terms, loop.time())
        request = QueuedRequest(
            costs=[*work.costs],
            caller=terms.caller,
            priority=terms.priority,
            in_pieces=self._in_pieces,
            token_ids=work.token_ids,
            reads=work.reads,
            keys=work.keys,
            arrived=loop.time(),
            answered=loop.create_future(),
        )
        self._enter(request)
        try:
            await request.answered
        finally:
            self._leave(request)
        return request.answer()

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while ``submit`` would. Call it before a request has cost anything."""
        self._admission.refuse_if_full(caller, priority)

    def refuse_unless_open(self) -> None:
        """Raises NotReady while ``submit`` would. Call it before a request has cost anything."""
        if self._closing:
            raise NotReady("the service is shutting down", retry_after=1)
        if not self.alive:
            raise NotReady("the batcher is not running")

    def _enter(self, request: QueuedRequest) -> None:
        self._queue.add(request)
        self._unanswered.add(request)
        self._waiters.add(request)
        self._wake.set()

    def _leave(self, request: QueuedRequest) -> None:
        """Takes a request out. Requests that wait for an equal sequence keep their own places in the queue."""
        self._queue.discard(request)
        self._unanswered.discard(request)
        self._waiters.discard(request)

    def _cost_now(self, request: QueuedRequest, index: int) -> int:
        return self.prepare([request.token_ids[index]], (), ()).costs[0]

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            if self._max_wait:
                await self._fill()
            # Taken only when the engine is free: requests that were cancelled or answered until now cost nothing.
            taken = [part for part in self._queue.take(self._max_batch_tokens) if part.entry.needs(part.index)]
            if taken:
                await self._forward(taken)

    async def _fill(self) -> None:
        """Waits for a full batch, at most until ``max_wait`` seconds after the oldest request arrived."""
        arrivals = [request.arrived for request in self._unanswered if not request.answered.done()]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(arrivals, default=0.0) + self._max_wait):
                while self.queued_tokens < self._max_batch_tokens and not self._closing:
                    self._wake.clear()
                    await self._wake.wait()

    async def _forward(self, taken: list[Part[QueuedRequest]]) -> None:
        groups = group_equal(taken)
        batch = [group[0] for group in groups]
        # Not in the try: if the thread takes no work, the loop must end, not only this batch fail.
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._score, batch)
        try:
            scores, seconds = await running
        except DeviceLost:
            raise
        except Unavailable as error:
            self._fail_all(taken, NotReady(str(error), retry_after=error.retry_after))
            return
        except OutOfMemory:
            await self._forward_apart(groups)
            return
        except Exception:
            failure = _failure("the engine failed")
            logger.exception("batch %s failed", failure.details["id"])
            self._fail_all(taken, failure)
            return
        for request in {part.entry for part in taken}:
            request.forward += seconds
        for part, (raw, computed) in zip(batch, scores, strict=True):
            self._deliver(part, raw, computed)
        self._record(batch, sum(computed for _, computed in scores), seconds)

    async def _forward_apart(self, groups: list[list[Part[QueuedRequest]]]) -> None:
        """Runs each sequence of a too large batch alone. One that does not fit alone fails."""
        if len(groups) == 1:
            tokens = len(_input(groups[0][0])[0])
            what = f"a sequence of {tokens} tokens does not fit into the device's memory"
            self._fail_all(groups[0], TooLong(what, details={"tokens": tokens}))
            return
        logger.warning("a batch of %d sequences did not fit into the device's memory: each goes alone", len(groups))
        for group in groups:
            if wanted := [part for part in group if part.entry.needs(part.index)]:
                await self._forward(wanted)

    def _score(self, batch: list[Part[QueuedRequest]]) -> tuple[Sequence[SequenceScores], float]:
        """Calls the engine, on its thread. Returns its scores and the seconds it took."""
        token_ids, reads = zip(*map(_input, batch), strict=True)
        started = perf_counter()
        scores = self._engine.score(token_ids, reads)
        if len(scores) != len(token_ids):
            raise RuntimeError(f"{len(scores)} results for {len(token_ids)} sequences. This is a bug of the engine")
        return scores, perf_counter() - started

    def _deliver(self, part: Part[QueuedRequest], raw: list[float], computed: int) -> None:
        request, index = part.entry, part.index
        request.computed[index] += computed
        if part.remaining:
            return
        failure = None
        if len(raw) != len(request.reads[index]) or not all(map(math.isfinite, raw)):
            failure = _failure("the engine gave no finite score for each step")
            self._observer.on_invalid(len(raw) - sum(map(math.isfinite, raw)))
            logger.error("request %s: %s for %s. This is a bug", failure.details["id"], raw, request.reads[index])
        for waiting, place in self._waiters.of(request.keys[index]):
            if failure is not None:
                self._fail(waiting, failure)
            else:
                waiting.receive(place, raw, shared=(waiting, place) != (request, index))

    def _record(self, batch: list[Part[QueuedRequest]], computed: int, seconds: float) -> None:
        self._admission.rate.record(sum(part.cost for part in batch), seconds)
        reused = sum(part.entry.reused(part.index) for part in batch if not part.remaining)
        self._observer.on_batch(Batch(len(batch), computed, reused, seconds))

    def _fail_all(self, parts: Sequence[Part[QueuedRequest]], error: RequestError) -> None:
        for part in parts:
            self._fail(part.entry, error)

    def _fail(self, request: QueuedRequest, error: RequestError) -> None:
        self._queue.discard(request)
        request.fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fails all waiting requests if the loop has died; after ``close`` there are none."""
        error = None if task.cancelled() else task.exception()
        if error is None and not self._unanswered:
            return
        failure = _failure("nothing can be scored any more until the service is started again")
        logger.critical(
            "scoring has ended, %d requests fail (%s)", len(self._unanswered), failure.details["id"], exc_info=error
        )
        for request in self._unanswered:
            self._fail(request, failure)


def _failure(message: str) -> InternalError:
    return InternalError(message, details={"id": secrets.token_hex(8)})


def _input(part: Part[QueuedRequest]) -> tuple[Sequence[int], Sequence[int]]:
    token_ids, reads = part.entry.token_ids[part.index], part.entry.reads[part.index]
    return (token_ids[: -part.remaining], ()) if part.remaining else (token_ids, reads)
