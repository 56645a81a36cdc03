"""One worker that has loaded, as the engine uses it: its processes, and a mirror of its prefix cache.

The mirror has no tensors: the same inserts and evictions in the same order give the same tree. So the cost of a
sequence on each worker is known without a call. A worker that is started again gets a new, empty mirror.
"""

from collections.abc import Sequence

from service.engine.contract import SequenceScores
from service.engine.device_memory import Memory
from service.engine.node_bytes import NODE_BYTES
from service.engine.prefix_cache import PrefixCache
from service.engine.workers.group import WorkerGroup
from service.engine.workers.worker import Call, WorkerInfo


class PrefixCacheMirror(PrefixCache[int]):
    """The prefix cache of a worker without its tensors: a value is the number of its tokens."""

    def __init__(self, max_bytes: int, token_bytes: int) -> None:
        super().__init__(
            max_bytes, size=lambda tokens: NODE_BYTES + tokens * token_bytes, split=lambda tokens, at: (at, tokens - at)
        )

    def record(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Repeats what the worker's engine has done to its cache to score these sequences."""
        leaves = [self.insert(ids) for ids in token_ids]
        for node in self.pending():
            self.fill(node, len(node.token_ids))
        for leaf in leaves:
            self.release(leaf)
        self.evict()


class RunningWorker:
    """One worker that has loaded. The engine's thread calls its methods; any thread may read the rest.

    Args:
        group: the processes, which have loaded.
        info: their properties.
    """

    def __init__(self, group: WorkerGroup, info: WorkerInfo) -> None:
        self.group = group
        self.info = info
        budget = 0 if info.token_bytes is None else group.config.prefix_cache_bytes
        self.mirror = PrefixCacheMirror(budget, info.token_bytes or 1)
        self.gpu_memory: Memory = {}
        """Bytes by device and kind, after the last call."""
        self.padding_tokens = 0
        """Padding tokens of the last call."""
        self.proven = False
        """True once the worker has scored a call."""
        self._called: Sequence[Sequence[int]] = ()

    def send(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> None:
        """Sends a call, which ``receive`` has to follow. Raises DeviceLost if a process has ended."""
        self.group.send(Call([list(ids) for ids in token_ids], [list(positions) for positions in reads]))
        self._called = token_ids

    def receive(self) -> list[SequenceScores]:
        """Returns the scores of the last call, and brings the mirror up to date. Raises as ``WorkerGroup.receive``."""
        try:
            reply = self.group.receive()
        except Exception:
            self.mirror.clear()
            raise
        self.mirror.joined_bytes = reply.joined_bytes
        self.mirror.record(self._called)
        self.gpu_memory, self.padding_tokens = reply.gpu_memory, reply.padding_tokens
        self.proven = True
        return reply.scores
