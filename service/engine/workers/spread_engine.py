"""An engine whose batches are computed by several workers at once, each a process on a device of its own.

The tree of what a worker holds is kept here too, without the tensors: the same inserts and evictions in the same order
give the same tree. So what a sequence would cost where is known without asking, and a sequence goes to the worker that
holds its prefix.
"""

from collections.abc import Sequence
from typing import Final

from service.engine.contract import SequenceScores
from service.engine.prefix_cache import PrefixCache, extend_lens, shared_len
from service.engine.workers.group import WorkerGroup
from service.engine.workers.worker import Call, Scored, WorkerInfo

WORTH_MOVING: Final = 1.25
"""How much more another worker may compute for a sequence than the one that holds most of it, if it is less busy."""


class HeldTokens(PrefixCache[int]):
    """What a worker holds, its values only the number of their tokens."""

    def __init__(self, max_bytes: int, token_bytes: int) -> None:
        super().__init__(
            max_bytes, size=lambda tokens: tokens * token_bytes, split=lambda tokens, at: (at, tokens - at)
        )

    def hold(self, token_ids: Sequence[Sequence[int]]) -> None:
        """As the worker's engine does once it has scored them."""
        leaves = [self.insert(ids) for ids in token_ids]
        for node in self.pending():
            self.fill(node, len(node.token_ids))
        for leaf in leaves:
            self.release(leaf)
        self.evict()


class SpreadEngine:
    """Scores a batch on all workers that take part in it; it ends when the slowest does.

    ``score`` is called from one thread, all else from any.
    """

    def __init__(self, groups: Sequence[WorkerGroup], *, prefix_cache_bytes: int) -> None:
        self._groups = groups
        facts = [group.loaded() for group in groups]
        first: WorkerInfo = facts[0]
        self.device = ",".join("+".join(group.devices) for group in groups)
        self.dtype, self.vocabulary = first.dtype, first.vocabulary
        self.row_tokens = first.row_tokens * len(groups)
        self.shares_prefixes = first.token_bytes is not None
        budget = prefix_cache_bytes if self.shares_prefixes else 0
        self.held = [HeldTokens(budget, fact.token_bytes or 1) for fact in facts]
        self.weights_error = first.weights_error
        self.padding_tokens = 0
        self._last: list[Scored | None] = [None] * len(groups)

    @property
    def used_bytes(self) -> int:
        """Bytes of keys and values that the workers hold, over all devices."""
        return sum(held.used_bytes for held in self.held)

    @property
    def joined_bytes(self) -> int:
        return sum(held.joined_bytes for held in self.held)

    @property
    def max_bytes(self) -> int:
        return sum(held.max_bytes for held in self.held)

    @property
    def evicted_bytes(self) -> int:
        return sum(held.evicted_bytes for held in self.held)

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Raw scores of each sequence at its read positions, in the caller's order. Raises as ``WorkerGroup`` does."""
        places = self._places(token_ids)
        asked = []
        for worker, group in enumerate(self._groups):
            mine = [index for index, place in enumerate(places) if place == worker]
            if mine:
                group.ask(Call([list(token_ids[index]) for index in mine], [list(reads[index]) for index in mine]))
                asked.append((worker, mine))
        return self._gather(token_ids, asked)

    def _gather(self, token_ids: Sequence[Sequence[int]], asked: list[tuple[int, list[int]]]) -> list[SequenceScores]:
        """Everybody's answer is taken before a failure is raised: an old one must not be read after the next call."""
        failures: list[Exception] = []
        scores: dict[int, SequenceScores] = {}
        for worker, mine in asked:
            try:
                scored = self._groups[worker].answer()
            except Exception as error:  # noqa: BLE001  (raised below)
                self.held[worker].clear()
                failures.append(error)
                continue
            self._note(worker, scored)
            self.held[worker].joined_bytes = scored.joined_bytes
            self.held[worker].hold([token_ids[index] for index in mine])
            scores.update(zip(mine, scored.scores, strict=True))
        if failures:
            raise failures[0]
        return [scores[index] for index in range(len(token_ids))]

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Tokens that ``score`` would compute now for each sequence: an estimate."""
        if not self.shares_prefixes:
            return [len(ids) for ids in token_ids]
        return extend_lens(token_ids, lambda ids: max(held.match(ids) for held in self.held))

    def gpu_memory(self) -> dict[str, dict[str, int]]:
        """Bytes by device and kind, as the processes of each worker saw them after its last batch."""
        return {device: kinds for last in self._last if last is not None for device, kinds in last.gpu_memory.items()}

    def _note(self, worker: int, scored: Scored) -> None:
        before = self._last[worker]
        self.padding_tokens += scored.padding_tokens - (before.padding_tokens if before else 0)
        self._last[worker] = scored

    def _places(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """The worker of each sequence: of those that have hardly more to compute for it than any, the least busy."""
        workers = range(len(self._groups))
        load = [0] * len(workers)
        before: list[Sequence[int]] = [()] * len(workers)
        places = []
        for ids in token_ids:
            costs = [
                len(ids) - max(held.match(ids), shared_len(before[worker], ids, 0))
                for worker, held in enumerate(self.held)
            ]
            near = [worker for worker in workers if costs[worker] <= min(costs) * WORTH_MOVING]
            place = min(near, key=lambda worker: (load[worker], self.held[worker].used_bytes))
            load[place] += costs[place]
            before[place] = ids
            places.append(place)
        return places
