"""What may wait in a queue: refusals by its bound and by deadlines, with how long it would take."""

from typing import Final, TypeVar

from agentprm.errors import DeadlineExceeded, Overloaded, TooLong
from service.queue.fair_queue import Entry, FairQueue, Priority

E = TypeVar("E", bound=Entry)

CLOSED_FROM: Final = 0.9
OPEN_BELOW: Final = 0.8
"""Of the bound. A refusal of a queue so full closes it to all until so much of it has drained: of those that come while
it is open one in the end is refused after it has cost all but a forward."""
_KEPT: Final = 0.9  # of what is remembered of the rate, per batch
_UNKNOWN_SECONDS: Final = 1.0


class DrainRate:
    """Tokens per second of forward, the latest batches counting most; the first one warms up and tells nothing."""

    def __init__(self) -> None:
        self._warm = False
        self._tokens = self._seconds = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        if self._warm:
            self._tokens = _KEPT * self._tokens + tokens
            self._seconds = _KEPT * self._seconds + seconds
        self._warm = True

    def seconds_for(self, tokens: int) -> float:
        """Expected seconds of forward; a second for anything while nothing is known."""
        if not tokens:
            return 0.0
        return tokens * self._seconds / self._tokens if self._tokens else _UNKNOWN_SECONDS


class Admission:
    """Guards a queue: at most ``max_tokens`` wait, all tokens still to be computed, or what else ``unit`` names."""

    def __init__(self, queue: FairQueue[E], max_tokens: int, unit: str = "tokens") -> None:
        self._queue = queue
        self._max_tokens = max_tokens
        self._unit = unit
        self._closed = False
        self.rate = DrainRate()

    def refuse_if_over(self, tokens: int) -> None:
        """What is over the bound alone is refused by an idle service too: the answer must not depend on the moment.

        Raises:
            TooLong: alone it is over the bound.
            Overloaded: beside what waits it is.
        """
        if tokens > self._max_tokens:
            raise TooLong(
                f"{tokens} {self._unit} to compute, {self._max_tokens} may wait: send less",
                details={self._unit: tokens, "limit": self._max_tokens},
            )
        if self._queue.tokens + tokens > self._max_tokens:
            self._closed = self._queue.tokens >= CLOSED_FROM * self._max_tokens
            raise self._overloaded(tokens)

    def refuse_if_full(self) -> None:
        """Raises Overloaded while the queue is closed.

        For whoever would refuse before a request has cost anything. What it will cost is not known yet, so one that
        the score cache could answer is refused with the others.
        """
        self._closed = self._closed and self._queue.tokens >= OPEN_BELOW * self._max_tokens
        if self._closed:
            raise self._overloaded(0)

    def refuse_if_late(self, remaining: float, tokens: int, caller: str, priority: Priority) -> None:
        """By what waits before it, and not by its own cost: an idle engine always tries.

        Raises:
            DeadlineExceeded: its turn is expected to come after ``remaining`` seconds.
        """
        wait = self.rate.seconds_for(self._queue.ahead(tokens, caller, priority))
        if wait > remaining:
            raise DeadlineExceeded(
                f"what waits before it takes about {wait:.3f} s, the deadline is in {max(0.0, remaining):.3f} s",
                details={"stage": "admission"},
            )

    def _overloaded(self, tokens: int) -> Overloaded:
        waiting = self._queue.tokens
        return Overloaded(
            f"{waiting} {self._unit} wait already, {self._max_tokens} may",
            details={f"queued_{self._unit}": waiting, self._unit: tokens, "limit": self._max_tokens},
            retry_after=self.rate.seconds_for(max(1, waiting + tokens - round(OPEN_BELOW * self._max_tokens))),
        )
