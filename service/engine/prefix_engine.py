"""Token ids in, raw scores out, on one device. Knows no text, no steps and no requests.

``PrefixEngine`` computes each token once, whoever shares it; ``PaddedEngine`` computes whole rows, for the few
architectures whose attention cannot be joined from parts, and for ratios of two models.

Axes: L layers, K key/value heads, T tokens of a row, D head size.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_store.network.model import RewardModel
from service.engine.contract import SequenceScores
from service.engine.device_memory import within_memory
from service.engine.joined_kv import JoinedKV
from service.engine.prefix_cache import Node, PrefixCache, extend_lens
from service.engine.row_attention import NAME, RowAttention
from service.engine.row_plan import Held, Row, plan_rows

ROW_TOKENS: Final = {"cpu": 512, "cuda": 4096}
"""New tokens of one forward: where the matrix products of a device have become efficient."""
JOINED_SHARE: Final = 8
"""One part in so many of the prefix cache's bytes may go to the joined copies of what it holds."""


class KV(NamedTuple):
    """What is held for the tokens of a node: keys and values [L, 2, K, T, D], and the raw score at each token [T]."""

    keys_values: Tensor
    raw: Tensor

    @property
    def bytes(self) -> int:
        return self.keys_values.nbytes + self.raw.nbytes

    def split(self, at: int) -> "tuple[KV, KV]":
        """Copies: a view would keep the bytes of the other half alive."""
        left, right = self.keys_values[:, :, :, :at].clone(), self.keys_values[:, :, :, at:].clone()
        return KV(left, self.raw[:at].clone()), KV(right, self.raw[at:].clone())


class PrefixEngine:
    """Scores on a model's device, computing only tokens that no earlier or neighbouring sequence has in common.

    Called from one thread; ``extend_lens`` from any.
    """

    def __init__(self, model: RewardModel, *, cache_bytes: int, longest: int) -> None:
        model.backbone.set_attn_implementation(NAME)
        self._model = model
        self._longest = longest
        weight = next(model.parameters())
        self.device = weight.device
        self.dtype = str(weight.dtype).removeprefix("torch.")
        self.vocabulary = model.vocabulary
        self.row_tokens = ROW_TOKENS[self.device.type]
        self.prefix_cache: PrefixCache[KV] = PrefixCache(cache_bytes, size=lambda kv: kv.bytes, split=KV.split)
        self._joined = JoinedKV(longest)

    @torch.inference_mode()
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: it does not fit; what was held and not in use is given up.
            DeviceLost: the device has failed for good.
        """
        return within_memory(lambda: self._score(token_ids, reads), give_up=self._give_up)

    def _score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        leaves: list[Node[KV]] = []
        try:
            for ids in token_ids:
                leaves.append(self.prefix_cache.insert(ids))  # noqa: PERF401  (those before a failure are released)
            pending = self.prefix_cache.pending()
            computed = _computed_by(leaves, pending)
            self._compute(pending)
            raw = (_read(leaf, positions) for leaf, positions in zip(leaves, reads, strict=True))
            return [SequenceScores(*scored) for scored in zip(raw, computed, strict=True)]
        finally:
            for leaf in leaves:
                self.prefix_cache.release(leaf)
            self._joined.trim(self.prefix_cache.max_bytes // JOINED_SHARE)
            self.prefix_cache.joined_bytes = self._joined.bytes
            self.prefix_cache.evict()

    def _give_up(self) -> None:
        self._joined.clear()
        self.prefix_cache.joined_bytes = 0
        self.prefix_cache.clear()

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Tokens that ``score`` would compute now for each sequence: an estimate."""
        return extend_lens(token_ids, self.prefix_cache.match)

    def _compute(self, pending: Sequence[Node[KV]]) -> None:
        """Rows in order, so that what a row attends to is there; a node is filled once all its tokens are."""
        parts: dict[Node[KV], list[KV]] = {node: [] for node in pending}
        most_joined = self.prefix_cache.max_bytes // JOINED_SHARE
        for row in plan_rows(pending, self.row_tokens):
            held = [self._joined.join(_pieces(held, parts), most_joined) for held in row.held]
            keys_values, raw = self._forward(row, held)
            self._joined.trim(most_joined)
            for segment in row.segments:
                own = slice(segment.row_start, segment.row_end)
                parts[segment.node].append(KV(keys_values[:, :, :, own].clone(), raw[own].clone()))
                if segment.end == len(segment.node.token_ids):
                    self.prefix_cache.fill(segment.node, _joined(parts.pop(segment.node)))

    def _forward(self, row: Row[KV], held: list[Tensor]) -> KV:
        attention = RowAttention(row, held, new=[], longest=self._longest)
        token_ids_BT = torch.tensor([row.token_ids()], device=self.device)
        positions_BT = torch.tensor([row.positions()], device=self.device)
        raw_BT = self._model(token_ids_BT, position_ids=positions_BT, row=attention)
        return KV(torch.stack(attention.new), raw_BT[0].cpu())


def _computed_by(leaves: Sequence[Node[KV]], pending: Sequence[Node[KV]]) -> list[int]:
    """How many pending tokens each sequence brings; what is shared counts for the first that asks for it."""
    unclaimed = set(pending)
    computed = []
    for leaf in leaves:
        claimed = unclaimed.intersection(leaf.path())
        unclaimed -= claimed
        computed.append(sum(len(node.token_ids) for node in claimed))
    return computed


def _read(leaf: Node[KV], positions: Sequence[int]) -> list[float]:
    path = leaf.path()
    ends = [node.end for node in path]
    raw = []
    for position in positions:
        node = path[bisect_right(ends, position)]
        assert node.value is not None, "read before it was computed"
        raw.append(node.value.raw[position - node.start].item())
    return raw


def _pieces(held: Held[KV], parts: dict[Node[KV], list[KV]]) -> list[Tensor]:
    """The KV of a run of nodes from the top; a node that is not filled yet has that of its rows so far."""
    pieces: list[Tensor] = []
    for node, _ in held.run:
        pieces += [node.value.keys_values] if node.value else [part.keys_values for part in parts[node]]
    return pieces


def _joined(parts: list[KV]) -> KV:
    if len(parts) == 1:
        return parts[0]
    return KV(torch.cat([part.keys_values for part in parts], 3), torch.cat([part.raw for part in parts]))
