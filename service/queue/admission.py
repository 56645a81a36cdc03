"""Admission to a queue: refuses what exceeds its limit, and what cannot make its deadline."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from agentprm.errors import DeadlineExceeded, Overloaded, TooLong
from service.queue.fair_queue import Entry, FairQueue, Priority
from service.queue.shares import who_gives_way
from service.queue.terms import Terms

E = TypeVar("E", bound=Entry)

CLOSED_FROM: Final = 0.9
OPEN_BELOW: Final = 0.8
"""Fractions of the queue's limit. A refusal above CLOSED_FROM closes the queue for one caller and one priority, until
the queue drains below OPEN_BELOW, or what the caller holds drains below the same fraction of its share. A closed queue
refuses requests before their bodies are read; an open one only after rendering and lookup."""
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


class Admission(Generic[E]):
    """Guards a queue, in which at most ``max_tokens`` may wait. Callers share it as ``service.queue.shares`` says.

    Args:
        queue: the queue; its tokens are those still to be computed.
        max_tokens: the limit.
        refuse: answers a waiting request that is pushed out. It has left the queue.
        unit: the name of what is counted, for error texts.
    """

    def __init__(
        self, queue: FairQueue[E], max_tokens: int, refuse: Callable[[E, Overloaded], None], unit: str = "tokens"
    ) -> None:
        self._queue = queue
        self._max_tokens = max_tokens
        self._refuse = refuse
        self._unit = unit
        self._closed: set[tuple[str, Priority]] = set()
        self.rate = DrainRate()

    def admit(self, tokens: int, terms: Terms, now: float) -> None:
        """Returns if a request of ``tokens`` may wait; ``now`` is the time of the event loop's clock.

        Room is made for a caller that holds less than others: their newest requests are refused instead. An idle
        service too refuses a request that exceeds the limit alone: the answer must not depend on the moment.

        Raises:
            TooLong: alone it exceeds the limit.
            Overloaded: together with the waiting requests it exceeds the limit, and no other caller must give way.
            DeadlineExceeded: its turn is expected to come after its deadline.
        """
        if tokens > self._max_tokens:
            raise TooLong(
                f"{tokens} {self._unit} to compute, {self._max_tokens} may wait: send less",
                details={self._unit: tokens, "limit": self._max_tokens},
            )
        yielding = who_gives_way(self._queue, self._max_tokens, tokens, terms.caller, terms.priority)
        share = self._share(terms.caller)
        if yielding is None:
            raise self._refusal(tokens, terms.caller, terms.priority, share)
        if terms.deadline is not None:
            self.refuse_if_late(terms.deadline - now, tokens, terms.caller, terms.priority)
        for entry in yielding:
            self._queue.discard(entry)
            self._refuse(entry, self._refusal(entry.waiting, entry.caller, entry.priority, share))

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while the queue is closed for this caller's requests of this priority.

        Called before a request has cost anything. Its cost is not known yet, so one that the score cache could answer
        is refused too.
        """
        if not self._closed:
            return
        if self._queue.tokens < OPEN_BELOW * self._max_tokens:
            self._closed.clear()
        elif (caller, priority) in self._closed:
            share = self._share(caller)
            if self._fills(caller, share):
                raise self._overloaded(0, caller, priority, share)
            self._closed.discard((caller, priority))

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

    def _refusal(self, tokens: int, caller: str, priority: Priority, share: int) -> Overloaded:
        """Returns the refusal of a request, and closes the queue for others like it if its caller fills its share."""
        if self._queue.tokens >= CLOSED_FROM * self._max_tokens and self._fills(caller, share):
            self._closed.add((caller, priority))
        return self._overloaded(tokens, caller, priority, share)

    def _fills(self, caller: str, share: int) -> bool:
        return self._queue.held[caller] >= OPEN_BELOW * share

    def _share(self, caller: str) -> int:
        """Returns the tokens that a caller may hold, however many others send: as many as each that waits beside it."""
        return self._max_tokens // self._queue.callers_with(caller)

    def _overloaded(self, tokens: int, caller: str, priority: Priority, share: int) -> Overloaded:
        waiting, held = self._queue.tokens, self._queue.held[caller]
        too_many = max(1, held + tokens - round(OPEN_BELOW * share))
        return Overloaded(
            f"{waiting} {self._unit} wait already, {self._max_tokens} may; {held} of them are yours",
            details={
                f"queued_{self._unit}": waiting,
                self._unit: tokens,
                "limit": self._max_tokens,
                "held": held,
                "share": share,
            },
            retry_after=self.rate.seconds_for(self._queue.until(too_many, caller, priority)),
        )
