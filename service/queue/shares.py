"""Equal shares of what all callers use together: whoever holds most gives way first.

A lone caller may fill the room. Another caller then gets its equal share of it, however the first one floods:

- A queue pushes out. The newest waiting requests of the caller that holds most are refused, so that a caller that holds
  less can wait. Routers share buffers by this rule, called longest queue drop.
- Requests in flight cannot be pushed out while their bodies are read. A caller may hold so many for each place that is
  still free, so a few places always stay free for others (the dynamic threshold of Choudhury and Hahne, 1998).

Interactive requests also push out bulk beyond its share of the queue, whoever sent it.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from service.queue.fair_queue import Entry, FairQueue, Priority

E = TypeVar("E", bound=Entry)

BULK_SHARE: Final = 0.5
"""Fraction of a queue that bulk keeps while interactive requests need room. Otherwise bulk may fill the whole queue."""
PLACES_PER_FREE_PLACE: Final = 8
"""A lone caller fills eight ninths of the places; a ninth stays free for the second caller to come."""


def may_take_place(held: int, free: int) -> bool:
    """Returns whether a caller that holds ``held`` places may take one more of the ``free`` ones."""
    return held < PLACES_PER_FREE_PLACE * free


def who_gives_way(queue: FairQueue[E], limit: int, tokens: int, caller: str, priority: Priority) -> list[E] | None:
    """Returns the waiting requests that must be refused so that a new one of ``tokens`` may wait.

    A request that makes its caller hold no more than an equal share always finds room. More than that it finds only
    if the caller that gives way still holds as much: else two equal callers would push each other out in turns.

    Args:
        queue: where requests wait. It is not changed.
        limit: most tokens that may wait.
        tokens: those of the new request, at most ``limit``.
        caller: its caller.
        priority: its priority.

    Returns:
        No requests if there is room for all; None if no room can be made.
    """
    excess = queue.tokens + tokens - limit
    return _Choice(queue, limit, tokens, caller, priority).entries(excess) if excess > 0 else []


class _Choice(Generic[E]):
    """The state of a choice: what callers hold without the requests chosen so far."""

    def __init__(self, queue: FairQueue[E], limit: int, tokens: int, caller: str, priority: Priority) -> None:
        self._queue = queue
        self._limit = limit
        self._tokens = tokens
        self._caller = caller
        self._over_bulk = priority is Priority.INTERACTIVE
        self._held = queue.held.copy()
        self._bulk = queue.held_by_bulk.copy()
        self._newest: dict[str, Iterator[E]] = {}

    def entries(self, excess: int) -> list[E] | None:
        chosen: list[E] = []
        while excess > 0:
            entry = self._next()
            if entry is None:
                return None
            chosen.append(entry)
            excess -= entry.waiting
            self._held[entry.caller] -= entry.waiting
            if entry.priority is Priority.BULK:
                self._bulk[entry.caller] -= entry.waiting
        return chosen

    def _next(self) -> E | None:
        """Returns the next request that gives way. Whoever holds most has one, since its tokens are counted."""
        if self._over_bulk and self._bulk.total() > BULK_SHARE * self._limit:
            return self._newest_of(_largest(self._bulk))
        giver = _largest(self._held)
        entry = self._newest_of(giver)
        mine = self._held[self._caller] + self._tokens
        within_share = mine * self._queue.callers_with(self._caller) <= self._limit
        return entry if within_share or mine <= self._held[giver] - entry.waiting else None

    def _newest_of(self, caller: str) -> E:
        if caller not in self._newest:
            self._newest[caller] = self._queue.newest(caller)
        return next(self._newest[caller])


def _largest(held: Counter[str]) -> str:
    return max(held, key=held.__getitem__)
