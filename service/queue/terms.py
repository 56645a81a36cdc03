"""Caller, priority, deadline and stage clock of one request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import NamedTuple

from agentprm.errors import DeadlineExceeded
from service.queue.fair_queue import Priority


class Terms(NamedTuple):
    """Caller, priority, arrival and deadline of a request; both times are those of the event loop's clock.

    With ``per_item`` the error of one item is that item's answer, and not the request's.
    """

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    arrived: float = 0.0
    deadline: float | None = None
    per_item: bool = False

    def with_timeout(self, milliseconds: int | None) -> "Terms":
        """Lowers the deadline to ``milliseconds`` after the arrival, unless it is earlier. None changes nothing."""
        if milliseconds is None:
            return self
        deadline = self.arrived + milliseconds / 1000
        return self._replace(deadline=deadline if self.deadline is None else min(self.deadline, deadline))


class StageClock:
    """The stage that a request is in, and the seconds of the stages before."""

    def __init__(self, first: str) -> None:
        self.stage = first
        self.seconds: dict[str, float] = {}
        self._entered = perf_counter()

    def enter(self, stage: str) -> None:
        entered = perf_counter()
        self.seconds[self.stage] = entered - self._entered
        self.stage, self._entered = stage, entered


@asynccontextmanager
async def within_deadline(deadline: float | None, first: str = "tokenize") -> AsyncIterator[StageClock]:
    """Cancels the block at ``deadline`` (loop time).

    Raises DeadlineExceeded, whose details name the stage of that moment.
    """
    clock = StageClock(first)
    try:
        async with asyncio.timeout_at(deadline):
            yield clock
    except TimeoutError as error:
        raise DeadlineExceeded(
            "the deadline passed before the scores were ready", details={"stage": clock.stage}
        ) from error
