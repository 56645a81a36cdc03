"""The batcher's requests and answers: sequences with their read positions, and the requests that wait for each.

Equal work has equal keys. Every request keeps its own place in the queue, so none waits for another's turn, and one
that is cancelled takes no other with it. The first turn answers them all.
"""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from agentprm.errors import RequestError
from service.engine.contract import Sequences
from service.queue.fair_queue import Entry, Part


class Work(NamedTuple):
    """Sequences to be scored at their read positions.

    Sequences with equal ``keys`` have equal tokens and reads. ``costs`` are the tokens that each is expected to need
    after the sequences before it.
    """

    token_ids: Sequences
    reads: Sequences
    keys: Sequence[Hashable]
    costs: list[int]


class Answer(NamedTuple):
    """Per sequence its raw scores, its tokens that were not computed for it, and whether another request computed it.

    ``queue`` and ``forward`` are the seconds of the whole request.
    """

    raw: list[list[float]]
    reused: list[int]
    shared: list[bool]
    queue: float
    forward: float


class Batch(NamedTuple):
    """The cost of one forward. ``reused``: tokens of its finished sequences that were not computed for them."""

    sequences: int
    computed: int
    reused: int
    seconds: float


@dataclass(slots=True, eq=False, kw_only=True)
class QueuedRequest(Entry):
    """A queue entry with its own answer channel."""

    token_ids: Sequences
    reads: Sequences
    keys: Sequence[Hashable]
    arrived: float
    answered: asyncio.Future[None]
    raw: dict[int, list[float]] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    computed: list[int] = field(init=False)
    forward: float = 0.0
    entered: float = field(default_factory=perf_counter)
    """The time of ``arrived`` by ``perf_counter``: the loop's clock may be rounded to milliseconds."""

    def __post_init__(self) -> None:
        self.computed = [0] * len(self.token_ids)

    def needs(self, index: int) -> bool:
        """True while a caller waits for this sequence and it has no scores."""
        return index not in self.raw and not self.answered.done()

    def receive(self, index: int, raw: list[float], *, shared: bool) -> None:
        if not self.needs(index):
            return
        self.raw[index] = raw
        if shared:
            self.shared.add(index)
        if len(self.raw) == len(self.token_ids):
            self.answered.set_result(None)

    def fail(self, error: RequestError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)

    def reused(self, index: int) -> int:
        """Tokens of a finished sequence that were not computed for it. Tokens computed twice count once."""
        return max(0, len(self.token_ids[index]) - self.computed[index])

    def answer(self) -> Answer:
        every = range(len(self.token_ids))
        return Answer(
            [self.raw[index] for index in every],
            [self.reused(index) for index in every],
            [index in self.shared for index in every],
            max(0.0, perf_counter() - self.entered - self.forward),
            self.forward,
        )


class Waiters:
    """The requests that wait for each key."""

    def __init__(self) -> None:
        self._by_key: defaultdict[Hashable, set[tuple[QueuedRequest, int]]] = defaultdict(set)

    def add(self, request: QueuedRequest) -> None:
        for index, key in enumerate(request.keys):
            self._by_key[key].add((request, index))

    def discard(self, request: QueuedRequest) -> None:
        for index, key in enumerate(request.keys):
            self._by_key[key].discard((request, index))
            if not self._by_key[key]:
                del self._by_key[key]

    def of(self, key: Hashable) -> list[tuple[QueuedRequest, int]]:
        """The requests that wait for a key, and its index in each."""
        return list(self._by_key.get(key, ()))


def group_equal(parts: Sequence[Part[QueuedRequest]]) -> list[list[Part[QueuedRequest]]]:
    """Groups equal work, in the order of each group's first part. One forward answers a whole group."""
    groups: dict[tuple[Hashable, int], list[Part[QueuedRequest]]] = {}
    for part in parts:
        groups.setdefault((part.entry.keys[part.index], part.remaining), []).append(part)
    return list(groups.values())
