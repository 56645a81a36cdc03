"""Admission to a queue: refuses what exceeds its limit, and what cannot make its deadline."""

from typing import Final, TypeVar

from agentprm.errors import DeadlineExceeded, Overloaded, TooLong
from service.queue.fair_queue import Entry, FairQueue, Priority
from service.queue.terms import Terms

E = TypeVar("E", bound=Entry)

CLOSED_FROM: Final = 0.9
OPEN_BELOW: Final = 0.8
"""Fractions of the queue's limit. A refusal above CLOSED_FROM closes the queue until it drains below OPEN_BELOW.
A closed queue refuses requests before their bodies are read; an open one only after rendering and lookup."""
_KEPT: Final = 0.9  # factor on the weight of all older batches at each new one
_UNKNOWN_SECONDS: Final = 1.0


class DrainRate:
    """Tokens per second of forward. Recent batches count most; the first one, a warm-up, does not count."""

    def __init__(self) -> None:
        self._warm = False
        self._tokens = self._seconds = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        if self._warm:
            self._tokens = _KEPT * self._tokens + tokens
            self._seconds = _KEPT * self._seconds + seconds
        self._warm = True

    def seconds_for(self, tokens: int) -> float:
        """Expected seconds of forward for ``tokens``; one second for any number while the rate is unknown."""
        if not tokens:
            return 0.0
        return tokens * self._seconds / self._tokens if self._tokens else _UNKNOWN_SECONDS


class Admission:
    """Guards a queue, in which at most ``max_tokens`` may wait.

    Args:
        queue: the queue; its tokens are those still to be computed.
        max_tokens: the limit.
        unit: the name of what is counted, for error texts.
    """

    def __init__(self, queue: FairQueue[E], max_tokens: int, unit: str = "tokens") -> None:
        self._queue = queue
        self._max_tokens = max_tokens
        self._unit = unit
        self._closed = False
        self.rate = DrainRate()

    def admit(self, tokens: int, terms: Terms, now: float) -> None:
        """Returns if a request of ``tokens`` may wait; ``now`` is the time of the event loop's clock.

        Raises:
            TooLong, Overloaded: it would exceed the limit, alone or together with the waiting requests.
            DeadlineExceeded: its turn is expected to come after its deadline.
        """
        self.refuse_if_over(tokens)
        if terms.deadline is not None:
            self.refuse_if_late(terms.deadline - now, tokens, terms.caller, terms.priority)

    def refuse_if_over(self, tokens: int) -> None:
        """Refuses a request of ``tokens`` if it would exceed the limit.

        An idle service too refuses one that exceeds the limit alone: the answer must not depend on the moment.

        Raises:
            TooLong: alone it exceeds the limit.
            Overloaded: together with the waiting requests it exceeds the limit.
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

        Called before a request has cost anything. Its cost is not known yet, so one that the score cache could answer
        is refused too.
        """
        self._closed = self._closed and self._queue.tokens >= OPEN_BELOW * self._max_tokens
        if self._closed:
            raise self._overloaded(0)

    def refuse_if_late(self, remaining: float, tokens: int, caller: str, priority: Priority) -> None:
        """Refuses a request whose turn would come too late. Its own cost does not count: an idle engine always tries.

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
