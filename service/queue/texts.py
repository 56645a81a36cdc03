"""The turns of texts before the tokenizer, whose one thread all models share.

A short text is rendered at once, on the event loop: it costs less than the switch to another thread. All others wait
in a ``FairQueue`` whose costs are characters. The thread gets one job at a time, so nobody waits behind more than the
job that runs and those whose turns come first.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeVar

from agentprm.errors import DeadlineExceeded, Overloaded
from service.queue.admission import DrainRate
from service.queue.fair_queue import Entry, FairQueue, Part
from service.queue.terms import Terms

T = TypeVar("T")

MAX_CHARS_ON_EVENT_LOOP: Final = 4096
"""Most characters of a request that the event loop renders: 0.1 ms if the texts are known, 0.5 ms if they are not, 4 ms
for the characters that tokenizers are slowest with. The switch to the thread and back takes 0.1 ms."""
JOB_CHARS: Final = 32_768
"""Characters of one job of the thread. A longer item is a job of its own."""
CHARACTERS_PER_TOKEN: Final = 64
LEAST_CHARACTERS: Final = 65_536
MAX_WAITING_CHARS: Final = 4 * 1024 * 1024
"""Most characters of one caller's requests that wait or are rendered: about what the largest body holds by default."""


def characters_allowed(context_length: int) -> int:
    """Returns the most characters of an item, counted before it is tokenised.

    Tokens of agents' texts have 3 to 5 characters. Repeated white space may have 64 in one token.
    """
    return max(LEAST_CHARACTERS, CHARACTERS_PER_TOKEN * context_length)


@dataclass(slots=True, eq=False, kw_only=True)
class _Request(Entry):
    """A request's renderings, one per item. The thread adds their results, or the first error."""

    renderings: Sequence[Callable[[], Any]]
    rendered: asyncio.Future[None]
    results: list[Any] = field(default_factory=list)
    error: BaseException | None = None

    def render(self, index: int) -> None:
        """Called on the thread. Does nothing if nobody waits for the result any more."""
        if self.rendered.done() or self.error is not None:
            return
        try:
            self.results.append(self.renderings[index]())
        except BaseException as error:  # noqa: BLE001  (a panic of the tokenizer is no Exception)
            self.error = error

    def answer_if_rendered(self) -> None:
        """Called on the event loop."""
        if self.rendered.done():
            return
        if self.error is not None:
            self.rendered.set_exception(self.error)
        elif len(self.results) == len(self.renderings):
            self.rendered.set_result(None)


class TextQueue:
    """Gives the tokenizer's thread one job at a time, callers in turn and interactive requests before bulk.

    Args:
        thread: renders. Nothing else should keep it busy.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._queue: FairQueue[_Request] = FairQueue(lambda request, index: request.costs[index])
        self._chars_of: Counter[str] = Counter()
        self._rate = DrainRate()
        self._running: asyncio.Future[float] | None = None
        self.chars = 0
        """Characters of all requests that wait or are rendered. Any thread may read it."""

    async def each(self, renderings: Sequence[Callable[[], T]], chars: Sequence[int], terms: Terms) -> list[T]:
        """Calls each function and returns the results in order. Cancelling the call takes the rest out of the queue.

        Args:
            renderings: one function per item; any thread may call it.
            chars: the characters of each item.
            terms: the caller, the priority and the deadline.

        Raises:
            DeadlineExceeded: the deadline has passed already. The caller cancels when it passes later.
            Overloaded: together with the caller's other requests there are too many characters.
            Exception: the first that a function raises. Later ones are not called.
        """
        now = asyncio.get_running_loop().time()
        if terms.deadline is not None and terms.deadline <= now:
            raise DeadlineExceeded("the deadline passed before the text was tokenised", details={"stage": "tokenize"})
        self._refuse_if_over(sum(chars), terms.caller)
        return await self._results(renderings, chars, terms)

    async def in_turn(self, work: Callable[[], T], chars: int, terms: Terms) -> T:
        """Calls a function that takes as long as rendering ``chars``, for a request whose text has been rendered.

        It waits for its turn, but is never refused.
        """
        (result,) = await self._results([work], [chars], terms)
        return result

    async def _results(self, renderings: Sequence[Callable[[], T]], chars: Sequence[int], terms: Terms) -> list[T]:
        if sum(chars) <= MAX_CHARS_ON_EVENT_LOOP:
            return [rendering() for rendering in renderings]
        request = _Request(
            costs=[max(1, cost) for cost in chars],
            caller=terms.caller,
            priority=terms.priority,
            in_pieces=False,
            renderings=renderings,
            rendered=asyncio.get_running_loop().create_future(),
        )
        self._count(request.caller, sum(chars))
        self._queue.add(request)
        try:
            self._start_job()
            await request.rendered
        finally:
            self._queue.discard(request)
            self._count(request.caller, -sum(chars))
        return request.results

    def _count(self, caller: str, chars: int) -> None:
        self.chars += chars
        self._chars_of[caller] += chars
        if not self._chars_of[caller]:
            del self._chars_of[caller]

    def _start_job(self) -> None:
        if self._running is not None or not self._queue:
            return
        parts = self._queue.take(JOB_CHARS)
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, _render, parts)
        self._running.add_done_callback(partial(self._end_job, parts))

    def _end_job(self, parts: Sequence[Part[_Request]], job: asyncio.Future[float]) -> None:
        self._running = None
        if not job.cancelled():
            self._rate.record(sum(part.cost for part in parts), job.result())
        for request in {part.entry: None for part in parts}:
            request.answer_if_rendered()
            if request.rendered.done():
                self._queue.discard(request)
        self._start_job()

    def _refuse_if_over(self, chars: int, caller: str) -> None:
        """Refuses what would exceed the caller's limit, unless it is short or alone: every body has a limit."""
        waiting = self._chars_of[caller]
        if waiting and chars > MAX_CHARS_ON_EVENT_LOOP and waiting + chars > MAX_WAITING_CHARS:
            raise Overloaded(
                f"{waiting} characters of this caller wait already, {MAX_WAITING_CHARS} may",
                details={"queued_characters": waiting, "characters": chars, "limit": MAX_WAITING_CHARS},
                retry_after=self._rate.seconds_for(waiting + chars - MAX_WAITING_CHARS),
            )


def _render(parts: Sequence[Part[_Request]]) -> float:
    """Renders one job, on the thread. Returns the seconds it took."""
    started = perf_counter()
    for part in parts:
        part.entry.render(part.index)
    return perf_counter() - started
