"""An engine that spreads each batch over several workers.

A mirror of each worker's prefix cache is kept here, without the tensors: the same inserts and evictions in the same
order give the same tree. So the cost of a sequence on each worker is known without a call, and a sequence goes to the
worker that has its prefix cached.
"""

from collections.abc import Sequence
from typing import Final

from service.engine.contract import SequenceScores
from service.engine.device_memory import Memory
from service.engine.prefix_cache import PrefixCache, extend_lens, shared_len
from service.engine.workers.group import WorkerGroup
from service.engine.workers.worker import Call, ScoreReply, WorkerInfo

BALANCE_RATIO: Final = 1.25
"""A less busy worker may compute this many times the tokens of the worker that has most of a sequence cached."""


class PrefixCacheMirror(PrefixCache[int]):
    """The prefix cache of a worker without its tensors: a value is the number of its tokens."""

    def __init__(self, max_bytes: int, token_bytes: int) -> None:
        super().__init__(
            max_bytes, size=lambda tokens: tokens * token_bytes, split=lambda tokens, at: (at, tokens - at)
        )

    def record(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Repeats what the worker's engine has done to its cache to score these sequences."""
        leaves = [self.insert(ids) for ids in token_ids]
        for node in self.pending():
            self.fill(node, len(node.token_ids))
        for leaf in leaves:
            self.release(leaf)
        self.evict()


class SpreadEngine:
    """Scores a batch on several workers at once; a batch takes as long as its slowest worker.

    One thread calls ``score``; any thread may use everything else.

    Args:
        groups: the workers; the constructor waits until all have loaded, and raises as ``WorkerGroup.loaded`` does.
        prefix_cache_bytes: limit of each worker's prefix cache on each of its devices.
    """

    def __init__(self, groups: Sequence[WorkerGroup], *, prefix_cache_bytes: int) -> None:
        self._groups = groups
        infos = [group.loaded() for group in groups]
        first: WorkerInfo = infos[0]
        self.device = ",".join("+".join(group.devices) for group in groups)
        self.dtype, self.vocabulary = first.dtype, first.vocabulary
        self.row_tokens = first.row_tokens * len(groups)
        self.shares_prefixes = first.token_bytes is not None
        budget = prefix_cache_bytes if self.shares_prefixes else 0
        self.mirrors = [PrefixCacheMirror(budget, info.token_bytes or 1) for info in infos]
        self.weights_error = first.weights_error
        self.padding_tokens = 0
        self._last: list[ScoreReply | None] = [None] * len(groups)

    @property
    def used_bytes(self) -> int:
        """Cached bytes, summed over the workers; of a worker with several devices only the first is counted."""
        return sum(mirror.used_bytes for mirror in self.mirrors)

    @property
    def joined_bytes(self) -> int:
        return sum(mirror.joined_bytes for mirror in self.mirrors)

    @property
    def max_bytes(self) -> int:
        return sum(mirror.max_bytes for mirror in self.mirrors)

    @property
    def evicted_bytes(self) -> int:
        return sum(mirror.evicted_bytes for mirror in self.mirrors)

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Returns the raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: a worker's part of the batch does not fit into the memory of a device.
            DeviceLost: a device has failed for good, or a worker has ended.
            RuntimeError: an engine failed; the message includes its traceback.
        """
        workers = self._assign(token_ids)
        sent = []
        for worker, group in enumerate(self._groups):
            indices = [index for index, assigned in enumerate(workers) if assigned == worker]
            if indices:
                call = Call([list(token_ids[index]) for index in indices], [list(reads[index]) for index in indices])
                group.send(call)
                sent.append((worker, indices))
        return self._gather(token_ids, sent)

    def _gather(self, token_ids: Sequence[Sequence[int]], sent: list[tuple[int, list[int]]]) -> list[SequenceScores]:
        """Receives every reply before it raises a failure: a reply left in a pipe would answer the next call."""
        failures: list[Exception] = []
        scores: dict[int, SequenceScores] = {}
        for worker, indices in sent:
            try:
                reply = self._groups[worker].receive()
            except Exception as error:  # noqa: BLE001  (raised below)
                self.mirrors[worker].clear()
                failures.append(error)
                continue
            self._record(worker, reply, [token_ids[index] for index in indices])
            scores.update(zip(indices, reply.scores, strict=True))
        if failures:
            raise failures[0]
        return [scores[index] for index in range(len(token_ids))]

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Returns how many tokens ``score`` would compute now for each sequence: an estimate. For any thread."""
        if not self.shares_prefixes:
            return [len(ids) for ids in token_ids]
        return extend_lens(token_ids, lambda ids: max(mirror.match(ids) for mirror in self.mirrors))

    def gpu_memory(self) -> Memory:
        """Returns bytes by device and kind, as each worker reported them after its last batch. For any thread."""
        return {device: kinds for last in self._last if last is not None for device, kinds in last.gpu_memory.items()}

    def _record(self, worker: int, reply: ScoreReply, token_ids: Sequence[Sequence[int]]) -> None:
        last = self._last[worker]
        self.padding_tokens += reply.padding_tokens - (last.padding_tokens if last else 0)
        self._last[worker] = reply
        self.mirrors[worker].joined_bytes = reply.joined_bytes
        self.mirrors[worker].record(token_ids)

    def _assign(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Returns the worker of each sequence: the least busy of those within BALANCE_RATIO of the lowest cost."""
        workers = range(len(self._groups))
        load = [0] * len(workers)
        previous: list[Sequence[int]] = [()] * len(workers)
        assigned = []
        for ids in token_ids:
            costs = [
                len(ids) - max(mirror.match(ids), shared_len(previous[worker], ids, 0))
                for worker, mirror in enumerate(self.mirrors)
            ]
            candidates = [worker for worker in workers if costs[worker] <= min(costs) * BALANCE_RATIO]
            chosen = min(candidates, key=lambda worker: (load[worker], self.mirrors[worker].used_bytes))
            load[chosen] += costs[chosen]
            previous[chosen] = ids
            assigned.append(chosen)
        return assigned
