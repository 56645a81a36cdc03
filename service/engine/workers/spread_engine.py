"""An engine that spreads each batch over several workers. A sequence goes to a worker that has its prefix cached.

When a worker ends, its part of the batch goes to the others, while its supervisor starts it again.
"""

import logging
from collections.abc import Sequence
from multiprocessing.util import Finalize
from typing import Final

from service.engine.contract import DeviceLost, Sequences, SequenceScores, Unavailable
from service.engine.device_memory import Memory
from service.engine.prefix_cache import extend_lens, shared_len
from service.engine.workers.group import WorkerGroup
from service.engine.workers.running_worker import PrefixCacheMirror, RunningWorker
from service.engine.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)

BALANCE_RATIO: Final = 1.25
"""A less busy worker may compute this many times the tokens of the worker that has most of a sequence cached."""
ATTEMPTS: Final = 3
"""Most workers that may be lost over one batch: the batch itself may be what ends them."""


class SpreadEngine:
    """Scores a batch on several workers at once; a batch takes as long as its slowest worker.

    One thread calls ``score``; any thread may use everything else. The processes end when the engine is collected.

    Args:
        groups: the workers; the constructor waits until all have loaded, and raises as ``WorkerGroup.loaded`` does.
    """

    def __init__(self, groups: Sequence[WorkerGroup]) -> None:
        workers = [RunningWorker(group, group.loaded()) for group in groups]
        first = workers[0].info
        self.device = ",".join("+".join(group.config.devices) for group in groups)
        self.dtype, self.vocabulary = first.dtype, first.vocabulary
        self.row_tokens = first.row_tokens * len(groups)
        self.shares_prefixes = first.token_bytes is not None
        self.weights_error = first.weights_error
        self.max_bytes = sum(worker.mirror.max_bytes for worker in workers)
        self.evicted_bytes = self.padding_tokens = 0
        self._supervisors = [Supervisor(worker) for worker in workers]
        # Runs at the latest when this process ends: before the groups end their processes, which would start again.
        Finalize(self, _close, (self._supervisors,), exitpriority=1)

    @property
    def used_bytes(self) -> int:
        """Cached bytes, summed over the workers; of a worker with several devices only the first is counted."""
        return sum(mirror.used_bytes for mirror in self.mirrors)

    @property
    def joined_bytes(self) -> int:
        return sum(mirror.joined_bytes for mirror in self.mirrors)

    @property
    def mirrors(self) -> list[PrefixCacheMirror]:
        return [worker.mirror for worker in self._workers()]

    @property
    def running(self) -> int:
        return len(self._workers())

    @property
    def down(self) -> int:
        return len(self._supervisors) - self.running

    @property
    def restarts(self) -> int:
        return sum(supervisor.restarts for supervisor in self._supervisors)

    @property
    def lost(self) -> bool:
        return all(supervisor.given_up for supervisor in self._supervisors)

    def score(self, token_ids: Sequences, reads: Sequences) -> list[SequenceScores]:
        """Returns the raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: a worker's part of the batch does not fit into the memory of a device.
            Unavailable: no worker is left, and at least one is being started again.
            DeviceLost: no worker is left, and none is started again.
            RuntimeError: an engine failed; the message includes its traceback.
        """
        workers = self._workers()
        scores: dict[int, SequenceScores] = {}
        for _ in range(ATTEMPTS):
            if not workers:
                break
            missing = [index for index in range(len(token_ids)) if index not in scores]
            found, lost = self._score_on(workers, token_ids, reads, missing)
            scores |= found
            if not lost:
                return [scores[index] for index in range(len(token_ids))]
            workers = [worker for worker in workers if worker not in lost]
        raise self._none_left()

    def _workers(self) -> list[RunningWorker]:
        return [worker for supervisor in self._supervisors if (worker := supervisor.worker) is not None]

    def _score_on(
        self, workers: Sequence[RunningWorker], token_ids: Sequences, reads: Sequences, missing: Sequence[int]
    ) -> tuple[dict[int, SequenceScores], list[RunningWorker]]:
        """Returns scores by index, and the workers that have ended; the scores of their sequences are not there.

        Receives every reply before it raises a failure: a reply left in a pipe would answer the next call.
        """
        sent: list[tuple[RunningWorker, list[int]]] = []
        lost: list[RunningWorker] = []
        for worker, indices in _assign(workers, token_ids, missing):
            try:
                worker.send([token_ids[index] for index in indices], [reads[index] for index in indices])
                sent.append((worker, indices))
            except DeviceLost:
                lost.append(worker)
        failures: list[Exception] = []
        scores: dict[int, SequenceScores] = {}
        for worker, indices in sent:
            try:
                scores.update(zip(indices, self._receive(worker), strict=True))
            except DeviceLost as error:
                logger.warning("%s while it computed %d sequences", error, len(indices))
                lost.append(worker)
            except Exception as error:  # noqa: BLE001  (raised below)
                failures.append(error)
        if failures:
            raise failures[0]
        return scores, lost

    def _receive(self, worker: RunningWorker) -> list[SequenceScores]:
        evicted_before = worker.mirror.evicted_bytes
        scores = worker.receive()
        self.evicted_bytes += worker.mirror.evicted_bytes - evicted_before
        self.padding_tokens += worker.padding_tokens
        return scores

    def _none_left(self) -> Exception:
        seconds = [supervisor.load_seconds for supervisor in self._supervisors if not supervisor.given_up]
        if not seconds:
            return DeviceLost(f"all workers on {self.device} have ended and could not be started again")
        return Unavailable("the model's workers have ended and are being started again", retry_after=min(seconds))

    def extend_lens(self, token_ids: Sequences) -> list[int]:
        """Returns how many tokens ``score`` would compute now for each sequence: an estimate. For any thread."""
        mirrors = self.mirrors
        if not self.shares_prefixes:
            return [len(ids) for ids in token_ids]
        return extend_lens(token_ids, lambda ids: max((mirror.match(ids) for mirror in mirrors), default=0))

    def gpu_memory(self) -> Memory:
        """Returns bytes by device and kind, as each worker reported them after its last batch. For any thread."""
        return {device: kinds for worker in self._workers() for device, kinds in worker.gpu_memory.items()}


def _assign(
    workers: Sequence[RunningWorker], token_ids: Sequences, indices: Sequence[int]
) -> list[tuple[RunningWorker, list[int]]]:
    """Returns the sequences of each worker that gets any.

    A sequence goes to the least busy of the workers within BALANCE_RATIO of the lowest cost.
    """
    places = range(len(workers))
    load = [0] * len(workers)
    previous: list[Sequence[int]] = [()] * len(workers)
    assigned: list[list[int]] = [[] for _ in workers]
    for index in indices:
        ids = token_ids[index]
        costs = [
            len(ids) - max(worker.mirror.match(ids), shared_len(previous[place], ids, 0))
            for place, worker in enumerate(workers)
        ]
        candidates = [place for place in places if costs[place] <= min(costs) * BALANCE_RATIO]
        chosen = min(candidates, key=lambda place: (load[place], workers[place].mirror.used_bytes))
        load[chosen] += costs[chosen]
        previous[chosen] = ids
        assigned[chosen].append(index)
    return [(worker, part) for worker, part in zip(workers, assigned, strict=True) if part]


def _close(supervisors: Sequence[Supervisor]) -> None:
    for supervisor in supervisors:
        supervisor.close()
