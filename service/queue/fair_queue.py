"""Who is next: interactive before bulk, callers in turn, first come first served within a caller.

A pure data structure that counts in tokens still to be computed. Knows no engine and no event loop.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

BULK_EVERY: Final = 32
"""While both classes wait, bulk leads one batch in so many: seldom enough that the slowest twentieth of interactive
requests are not those that it kept waiting."""


LEAST_PIECE: Final = 64
"""Tokens that are worth a piece to fill a batch: its keys and values are joined to the rest's later on."""


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """A request in the queue; its sequences before ``taken`` have left it."""

    costs: list[int]
    """Tokens still to be computed for each of its sequences, as last estimated. At least 1: looking up costs too."""
    caller: str
    priority: Priority
    in_pieces: bool = True
    """Whether a sequence over the budget of a batch may be computed over several."""
    taken: int = 0
    cut: bool = False
    """The next sequence has been computed in part."""

    @property
    def cost(self) -> int:
        """Of the next sequence."""
        return self.costs[self.taken]

    @property
    def waiting(self) -> int:
        return sum(self.costs[self.taken :])

    @property
    def spent(self) -> bool:
        return self.taken == len(self.costs)


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Part(Generic[E]):
    """What a batch computes of one sequence: all but its last ``left`` tokens, for ``cost`` tokens."""

    entry: E
    index: int
    cost: int
    left: int


class _Line(Generic[E]):
    """The entries of one class; the caller in front has the next turn."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, OrderedDict[E, None]] = OrderedDict()
        self.tokens: Counter[str] = Counter()
        """Of each caller."""

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __contains__(self, entry: E) -> bool:
        return entry in self._callers.get(entry.caller, ())

    @property
    def front(self) -> E:
        return next(iter(next(iter(self._callers.values()))))

    def __iter__(self) -> Iterator[E]:
        for entries in self._callers.values():
            yield from entries

    def add(self, entry: E) -> None:
        self._callers.setdefault(entry.caller, OrderedDict())[entry] = None

    def remove(self, entry: E) -> None:
        entries = self._callers[entry.caller]
        del entries[entry]
        if not entries:
            del self._callers[entry.caller], self.tokens[entry.caller]

    def end_turn(self, entry: E) -> None:
        """The caller goes to the back, and an entry that is spent goes for good."""
        self._callers.move_to_end(entry.caller)
        if entry.spent:
            self.remove(entry)


class FairQueue(Generic[E]):
    """Forms batches; ``tokens`` is what all that waits will cost.

    A turn is a caller's oldest entry, as much of it as fits: its sequences stay together, and whoever leads a batch
    lets the next caller lead the next one. What is left of a batch is filled with a piece of the next sequence, where
    pieces are possible; the entry that it is cut from leads the next batch.

    Args:
        estimate: the present cost of a sequence of an entry, asked for where the last estimate does not fit.
    """

    def __init__(self, estimate: Callable[[E, int], int]) -> None:
        self._estimate = estimate
        self._lines: dict[Priority, _Line[E]] = {priority: _Line() for priority in Priority}
        self._bulk_waited = 0
        self.tokens = 0

    def __bool__(self) -> bool:
        return any(self._lines.values())

    @property
    def sequences(self) -> int:
        """That have not been taken; counted when asked for."""
        return sum(len(entry.costs) - entry.taken for line in self._lines.values() for entry in line)

    def add(self, entry: E) -> None:
        assert not entry.spent, "an entry without sequences would never leave"
        self._lines[entry.priority].add(entry)
        self._count(entry, entry.waiting)

    def discard(self, entry: E) -> None:
        """Takes out what has not been taken; nothing if that is all gone."""
        line = self._lines[entry.priority]
        if entry in line:
            self._count(entry, -entry.waiting)
            line.remove(entry)

    def ahead(self, tokens: int, caller: str, priority: Priority) -> int:
        """About how many tokens go before an entry of so many that came now.

        The caller's own, about as many of every other caller's, and all that is interactive before bulk. Bulk that
        leads a batch now and then is left out.
        """
        waiting = self._lines[priority].tokens
        share = waiting[caller] + tokens
        others = sum(min(share, theirs) for name, theirs in waiting.items() if name != caller)
        sooner = self._lines[Priority.INTERACTIVE].tokens.total() if priority is Priority.BULK else 0
        return waiting[caller] + others + sooner

    def _count(self, entry: E, tokens: int) -> None:
        self.tokens += tokens
        self._lines[entry.priority].tokens[entry.caller] += tokens

    def take(self, budget: int) -> list[Part[E]]:
        """The next batch: in order of turns, up to the budget. A sequence over the budget goes alone."""
        batch: list[Part[E]] = []
        room = budget
        for line in self._lines_in_order():
            while line and room > 0:
                entry = line.front
                leads = not batch
                fills = leads or batch[0].entry.priority is entry.priority
                turn = self._turn(entry, room, leads=leads, fills=fills)
                batch += turn
                room -= sum(part.cost for part in turn)
                if turn and (leads or not entry.cut):
                    line.end_turn(entry)
                if not entry.spent:
                    break
        return batch

    def _lines_in_order(self) -> list[_Line[E]]:
        interactive, bulk = self._lines[Priority.INTERACTIVE], self._lines[Priority.BULK]
        if interactive and bulk:
            self._bulk_waited = (self._bulk_waited + 1) % BULK_EVERY
        return [interactive, bulk] if self._bulk_waited else [bulk, interactive]

    def _turn(self, entry: E, room: int, *, leads: bool, fills: bool) -> list[Part[E]]:
        """As much of an entry as fits; if it leads the batch, at least a part.

        ``fills``: a piece may take what is left. Of bulk it may not where interactive work leads and would wait for it.
        """
        parts: list[Part[E]] = []
        while room > 0 and not entry.spent:
            alone = leads and not parts
            if entry.cost > room:
                self._refresh(entry, alone=alone)
            if entry.cost > room and not alone and not (fills and entry.in_pieces and room >= LEAST_PIECE):
                break
            parts.append(self._cut(entry, room) if entry.cost > room and entry.in_pieces else self._take(entry))
            room -= parts[-1].cost
        return parts

    def _refresh(self, entry: E, *, alone: bool) -> None:
        """A sequence with others before it is not made dearer: the old estimate knew what it shares with them."""
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
        return Part(entry, entry.taken, cost, left=entry.cost)

    def _take(self, entry: E) -> Part[E]:
        part = Part(entry, entry.taken, entry.cost, left=0)
        self._count(entry, -part.cost)
        entry.taken += 1
        entry.cut = False
        return part
