"""The engine with a prefix cache: token ids in, raw scores out, on one device. Knows no text, steps or requests.

``PrefixEngine`` computes each token once, however many sequences share it. ``PaddedEngine`` computes whole rows, for
the few architectures whose attention cannot be joined from parts, and for ratios of two models.

Axes: B batch (always 1), L layers, K key/value heads, T tokens of a row, D head size.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_store.network.model import RewardModel
from service.engine.contract import SequenceScores
from service.engine.device_memory import trim_heap, within_memory
from service.engine.joined_kv import JoinedKV
from service.engine.node_bytes import NODE_BYTES, TOKEN_ID_BYTES
from service.engine.prefix_cache import Node, PrefixCache, extend_lens
from service.engine.row_attention import NAME, RowAttention
from service.engine.row_plan import HeldContext, Row, plan_rows

ROW_TOKENS: Final = {"cpu": 512, "cuda": 4096}
"""New tokens of one forward, by device: enough for efficient matrix products."""
JOINED_SHARE: Final = 8
"""Joined copies may take up one part in JOINED_SHARE of the prefix cache's bytes."""
TRIM_SHARE: Final = 16
LEAST_TRIM_BYTES: Final = 2**22
"""On a CPU the heap is trimmed each time that one part in TRIM_SHARE of the limit was computed, but at least these
bytes. Forwards and evictions leave free pages between the nodes, which would grow to as much as the nodes."""


class KV(NamedTuple):
    """The cached value of a node: keys and values [L, 2, K, T, D], and the raw score at each token as a float32 [T]."""

    keys_values: Tensor
    raw: "array[float]"
    """An array, because the header of a tensor takes up 400 bytes more."""

    @property
    def bytes(self) -> int:
        """Bytes of the node: keys and values, and what the host holds beside them."""
        return self.keys_values.nbytes + len(self.raw) * (self.raw.itemsize + TOKEN_ID_BYTES) + NODE_BYTES

    def split(self, at: int) -> "tuple[KV, KV]":
        """Returns copies of both halves: a view would keep the memory of the other half alive."""
        left, right = self.keys_values[:, :, :, :at].clone(), self.keys_values[:, :, :, at:].clone()
        return KV(left, self.raw[:at]), KV(right, self.raw[at:])


class PrefixEngine:
    """Scores on a model's device, and computes each shared prefix once.

    One thread calls ``score``. Any thread may call ``extend_lens`` and read the sizes of ``prefix_cache``.

    Args:
        model: the engine replaces its attention function.
        cache_bytes: limit of the prefix cache, joined copies included.
        context_length: tokens of the longest sequence that will be scored.
    """

    def __init__(self, model: RewardModel, *, cache_bytes: int, context_length: int) -> None:
        model.backbone.set_attn_implementation(NAME)
        self._model = model
        self._context_length = context_length
        weight = next(model.parameters())
        self.device = weight.device
        self.dtype = str(weight.dtype).removeprefix("torch.")
        self.vocabulary = model.vocabulary
        self.row_tokens = ROW_TOKENS[self.device.type]
        self.prefix_cache: PrefixCache[KV] = PrefixCache(cache_bytes, size=lambda kv: kv.bytes, split=KV.split)
        self._joined_kv = JoinedKV(context_length)
        self._untrimmed_bytes = 0

    @torch.inference_mode()
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Returns the raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: the batch does not fit into the device's memory. The cache has been emptied.
            DeviceLost: the device has failed for good.
            ValueError: a sequence is empty, or ``reads`` is not as long as ``token_ids``.
            IndexError: a read position is beyond the end of its sequence.
        """
        return within_memory(lambda: self._score(token_ids, reads), free_cache=self._free_cache)

    def _score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        leaves: list[Node[KV]] = []
        try:
            for ids in token_ids:
                leaves.append(self.prefix_cache.insert(ids))  # noqa: PERF401  (a failure must release the earlier ones)
            pending = self.prefix_cache.pending()
            computed = _computed_by(leaves, pending)
            self._compute(pending)
            raw = (_read(leaf, positions) for leaf, positions in zip(leaves, reads, strict=True))
            return [SequenceScores(*scored) for scored in zip(raw, computed, strict=True)]
        finally:
            for leaf in leaves:
                self.prefix_cache.release(leaf)
            self._joined_kv.trim(self.prefix_cache.max_bytes // JOINED_SHARE)
            self.prefix_cache.joined_bytes = self._joined_kv.bytes
            self.prefix_cache.evict()
            self._trim_heap_in_time()

    def _trim_heap_in_time(self) -> None:
        enough = max(LEAST_TRIM_BYTES, self.prefix_cache.max_bytes // TRIM_SHARE)
        if self.device.type == "cpu" and self._untrimmed_bytes > enough:
            self._untrimmed_bytes = 0
            trim_heap()

    def _free_cache(self) -> None:
        self._joined_kv.clear()
        self.prefix_cache.joined_bytes = 0
        self.prefix_cache.clear()

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Returns how many tokens ``score`` would compute now for each sequence: an estimate. For any thread."""
        return extend_lens(token_ids, self.prefix_cache.match)

    def _compute(self, pending: Sequence[Node[KV]]) -> None:
        """Computes rows in order, since a row attends to earlier ones, and fills a node with its last row."""
        parts: dict[Node[KV], list[KV]] = {node: [] for node in pending}
        max_joined_bytes = self.prefix_cache.max_bytes // JOINED_SHARE
        for row in plan_rows(pending, self.row_tokens):
            held = [self._joined_kv.join(_pieces(context, parts), max_joined_bytes) for context in row.held]
            keys_values, raw = self._forward(row, held)
            self._joined_kv.trim(max_joined_bytes)
            for segment in row.segments:
                own = slice(segment.row_start, segment.row_end)
                parts[segment.node].append(KV(keys_values[:, :, :, own].clone(), raw[own]))
                if segment.end == len(segment.node.token_ids):
                    self.prefix_cache.fill(segment.node, _concatenate(parts.pop(segment.node)))
                    self._untrimmed_bytes += segment.node.size

    def _forward(self, row: Row[KV], held: list[Tensor]) -> KV:
        attention = RowAttention(row, held, new=[], context_length=self._context_length)
        token_ids_BT = torch.tensor([row.token_ids()], device=self.device)
        positions_BT = torch.tensor([row.positions()], device=self.device)
        raw_BT = self._model(token_ids_BT, position_ids=positions_BT, row=attention)
        return KV(torch.stack(attention.new), array("f", raw_BT[0].tolist()))


def _computed_by(leaves: Sequence[Node[KV]], pending: Sequence[Node[KV]]) -> list[int]:
    """Returns the number of pending tokens of each sequence; a shared token counts for the first only."""
    unclaimed = set(pending)
    computed = []
    for leaf in leaves:
        claimed = unclaimed.intersection(leaf.path())
        unclaimed -= claimed
        computed.append(sum(len(node.token_ids) for node in claimed))
    return computed


def _read(leaf: Node[KV], positions: Sequence[int]) -> list[float]:
    """Returns the cached raw scores at the positions of the sequence that ends at ``leaf``."""
    path = leaf.path()
    ends = [node.end for node in path]
    raw = []
    for position in positions:
        node = path[bisect_right(ends, position)]
        assert node.value is not None, "read before it was computed"
        raw.append(node.value.raw[position - node.start])
    return raw


def _pieces(context: HeldContext[KV], parts: dict[Node[KV], list[KV]]) -> list[Tensor]:
    """Returns the KV of a run of nodes, top first; ``parts`` has the KV so far of a node that is not filled yet."""
    pieces: list[Tensor] = []
    for node, _ in context.run:
        pieces += [node.value.keys_values] if node.value else [part.keys_values for part in parts[node]]
    return pieces


def _concatenate(parts: list[KV]) -> KV:
    if len(parts) == 1:
        return parts[0]
    return KV(torch.cat([part.keys_values for part in parts], 3), array("f", chain(*[part.raw for part in parts])))
