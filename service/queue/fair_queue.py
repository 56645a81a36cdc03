"""The order of waiting requests: interactive before bulk, callers in turn, first come first served per caller.

A pure data structure that counts in tokens still to be computed. Knows no engine and no event loop.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

BULK_EVERY: Final = 32
"""While both classes wait, bulk leads one batch in BULK_EVERY: rare enough not to show in the interactive p95."""

MIN_PIECE_TOKENS: Final = 64
"""Smallest piece worth cutting to fill a batch; each piece costs a later copy of its keys and values."""


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """A request in the queue. Its first ``taken`` sequences have left it."""

    costs: list[int]
    """Tokens to be computed per sequence, as last estimated. At least 1, since a lookup costs too."""
    caller: str
    priority: Priority
    in_pieces: bool = True
    """True if a sequence over a batch's budget may be computed in several batches."""
    taken: int = 0
    cut: bool = False
    """True if a part of the next sequence has been computed."""

    @property
    def cost(self) -> int:
        """Tokens to be computed for the next sequence."""
        return self.costs[self.taken]

    @property
    def waiting(self) -> int:
        """Tokens to be computed for all of its sequences in the queue."""
        return sum(self.costs[self.taken :])

    @property
    def spent(self) -> bool:
        """True once all of its sequences have left the queue."""
        return self.taken == len(self.costs)


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Part(Generic[E]):
    """A sequence's part in a batch: all but its last ``remaining`` tokens; ``cost`` of them must be computed."""

    entry: E
    index: int
    cost: int
    remaining: int


class _CallerQueues(Generic[E]):
    """The entries of one priority, in a queue for each caller.

    A caller that has not been served has the next turn. Those that have been served take turns, and keep their places
    until their next turn even while nothing of theirs waits: a caller that comes back at once overtakes nobody. The
    flows of FQ-CoDel (RFC 8290) have their turns like this, so that one with little to send hardly waits. But a caller
    that was served is overtaken no more often in a row than callers wait, however many new ones keep coming.
    """

    def __init__(self) -> None:
        self._callers: dict[str, OrderedDict[E, None]] = {}
        self._unserved: OrderedDict[str, None] = OrderedDict()
        self._served: OrderedDict[str, None] = OrderedDict()
        self._overtakings_left = 0
        self.tokens: Counter[str] = Counter()
        """Waiting tokens by caller."""

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __contains__(self, entry: E) -> bool:
        return entry in self._callers.get(entry.caller, ())

    @property
    def front(self) -> E:
        return next(iter(self._callers[self._next_caller()]))

    def begin_batch(self) -> bool:
        """Counts a batch that ``front`` leads. Returns whether its caller overtakes others, which have been served."""
        overtakes = self._next_caller() in self._unserved and self._served_wait
        self._overtakings_left = self._overtakings_left - 1 if overtakes else len(self._callers)
        return overtakes

    def __iter__(self) -> Iterator[E]:
        for entries in self._callers.values():
            yield from entries

    def newest(self, caller: str) -> Iterator[E]:
        return reversed(self._callers.get(caller, OrderedDict[E, None]()))

    def add(self, entry: E) -> None:
        if entry.caller not in self._callers:
            self._callers[entry.caller] = OrderedDict()
            if entry.caller not in self._served:
                self._unserved[entry.caller] = None
        self._callers[entry.caller][entry] = None

    def remove(self, entry: E) -> None:
        entries = self._callers[entry.caller]
        del entries[entry]
        if not entries:
            del self._callers[entry.caller], self.tokens[entry.caller]
            self._unserved.pop(entry.caller, None)
        if not self._callers:
            self._served.clear()

    def end_turn(self, entry: E) -> None:
        """Moves the caller behind all others, and removes the entry if it is spent."""
        self._unserved.pop(entry.caller, None)
        self._served[entry.caller] = None
        self._served.move_to_end(entry.caller)
        if entry.spent:
            self.remove(entry)

    @property
    def _served_wait(self) -> bool:
        return len(self._callers) > len(self._unserved)

    def _next_caller(self) -> str:
        if self._unserved and (self._overtakings_left or not self._served_wait):
            return next(iter(self._unserved))
        while (caller := next(iter(self._served))) not in self._callers:
            del self._served[caller]
        return caller


class FairQueue(Generic[E]):
    """Forms batches of the waiting entries. ``tokens`` is the cost of everything in it.

    In its turn a caller's oldest entry is taken, as much of it as fits, so its sequences stay together. The caller that
    leads a batch goes to the back. If pieces are possible, the remaining room takes a piece of the next sequence, and
    the entry of that piece leads the next batch, unless a caller comes that has not been served. Its batch takes no
    pieces of others, so that it is a short one.

    Args:
        estimate: returns the present cost of an entry's sequence; called if the last estimate exceeds the room.
    """

    def __init__(self, estimate: Callable[[E, int], int]) -> None:
        self._estimate = estimate
        self._queues: dict[Priority, _CallerQueues[E]] = {priority: _CallerQueues() for priority in Priority}
        self._bulk_waited = 0
        self.tokens = 0
        self.held: Counter[str] = Counter()
        """Waiting tokens by caller, of both priorities; callers without any are left out."""

    def __bool__(self) -> bool:
        return any(self._queues.values())

    @property
    def sequences(self) -> int:
        """Sequences that have not been taken. Counted at each call."""
        return sum(len(entry.costs) - entry.taken for queues in self._queues.values() for entry in queues)

    def add(self, entry: E) -> None:
        assert not entry.spent, "an entry without sequences would never leave"
        self._queues[entry.priority].add(entry)
        self._count(entry, entry.waiting)

    def discard(self, entry: E) -> None:
        """Removes the rest of an entry; does nothing if it is not in the queue."""
        queues = self._queues[entry.priority]
        if entry in queues:
            self._count(entry, -entry.waiting)
            queues.remove(entry)

    @property
    def held_by_bulk(self) -> Counter[str]:
        """Waiting tokens of bulk by caller."""
        return self._queues[Priority.BULK].tokens

    def callers_with(self, caller: str) -> int:
        """Returns the number of callers that hold tokens, ``caller`` counted too."""
        return len(self.held) + (caller not in self.held)

    def newest(self, caller: str) -> Iterator[E]:
        """Yields a caller's entries: bulk before interactive, the newest first, so one that has begun is the last."""
        for priority in (Priority.BULK, Priority.INTERACTIVE):
            yield from self._queues[priority].newest(caller)

    def ahead(self, tokens: int, caller: str, priority: Priority) -> int:
        """Estimates how many tokens would be computed before a new entry of ``tokens``."""
        return self.until(self._queues[priority].tokens[caller] + tokens, caller, priority) - tokens

    def until(self, tokens: int, caller: str, priority: Priority) -> int:
        """Estimates how many tokens are computed until the next ``tokens`` of a caller are.

        These are the caller's own, about as many of every other caller's, and before bulk all interactive ones. The
        estimate ignores the few batches that bulk leads.
        """
        waiting = self._queues[priority].tokens
        others = sum(min(tokens, theirs) for name, theirs in waiting.items() if name != caller)
        sooner = self._queues[Priority.INTERACTIVE].tokens.total() if priority is Priority.BULK else 0
        return tokens + others + sooner

    def _count(self, entry: E, tokens: int) -> None:
        self.tokens += tokens
        self._queues[entry.priority].tokens[entry.caller] += tokens
        self.held[entry.caller] += tokens
        if not self.held[entry.caller]:
            del self.held[entry.caller]

    def take(self, budget: int) -> list[Part[E]]:
        """Takes the next batch: in order of turns, up to ``budget`` tokens. A sequence over the budget goes alone."""
        batch: list[Part[E]] = []
        room, overtaking = budget, False
        for queues in self._queues_in_order():
            while queues and room > 0:
                entry = queues.front
                leads = not batch
                overtaking = queues.begin_batch() if leads else overtaking
                fills = leads or (batch[0].entry.priority is entry.priority and not overtaking)
                turn = self._turn(entry, room, leads=leads, fills=fills)
                batch += turn
                room -= sum(part.cost for part in turn)
                if turn and (leads or not entry.cut):
                    queues.end_turn(entry)
                if not entry.spent:
                    break
        return batch

    def _queues_in_order(self) -> list[_CallerQueues[E]]:
        interactive, bulk = self._queues[Priority.INTERACTIVE], self._queues[Priority.BULK]
        if interactive and bulk:
            self._bulk_waited = (self._bulk_waited + 1) % BULK_EVERY
        return [interactive, bulk] if self._bulk_waited else [bulk, interactive]

    def _turn(self, entry: E, room: int, *, leads: bool, fills: bool) -> list[Part[E]]:
        """Takes as much of an entry as fits; at least a part if it leads the batch.

        ``fills``: a piece may fill the remaining room. It is False for bulk behind interactive work and behind a caller
        that overtakes, which would have to wait for the piece.
        """
        parts: list[Part[E]] = []
        while room > 0 and not entry.spent:
            alone = leads and not parts
            if entry.cost > room:
                self._refresh(entry, alone=alone)
            if entry.cost > room and not alone and not (fills and entry.in_pieces and room >= MIN_PIECE_TOKENS):
                break
            parts.append(self._cut(entry, room) if entry.cost > room and entry.in_pieces else self._take(entry))
            room -= parts[-1].cost
        return parts

    def _refresh(self, entry: E, *, alone: bool) -> None:
        """Estimates the next sequence anew. After other sequences its cost can only fall: it may share tokens."""
        now = self._estimate(entry, entry.taken)
        if entry.cut and now > entry.cost:
            entry.in_pieces = False  # what was computed has not been kept
        if alone or now < entry.cost:
            self._count(entry, now - entry.cost)
            entry.costs[entry.taken] = now

    def _cut(self, entry: E, cost: int) -> Part[E]:
        self._count(entry, -cost)
        entry.costs[entry.taken] -= cost
        entry.cut = True
        return Part(entry, entry.taken, cost, remaining=entry.cost)

    def _take(self, entry: E) -> Part[E]:
        part = Part(entry, entry.taken, entry.cost, remaining=0)
        self._count(entry, -part.cost)
        entry.taken += 1
        entry.cut = False
        return part
