"""The reference that engines are compared with: one sequence a forward, by a model with its own attention."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from transformers import GemmaConfig, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from model_store.network.model import RewardModel
from service.engine.node_bytes import NODE_BYTES
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_cache import Node
from service.engine.prefix_engine import KV, PrefixEngine
from tests.service.engine.sharp_models import CACHED_BYTES, KV_BYTES, SHAPE, naive_scores

Tokens = tuple[int, ...]
FAMILIES: list[type[PreTrainedConfig]] = [Qwen2Config, Qwen3Config, LlamaConfig, MistralConfig, GemmaConfig]
UNBOUNDED = 10**9
CONTEXT_LENGTH = SHAPE["max_position_embeddings"]
BATCH = [tuple(range(1, length)) for length in (30, 12, 50, 5)] + [(*range(1, 25), 7, 7), (9,) * 60]


@dataclass
class Reference:
    """A model and its naive scores, computed once for each sequence."""

    model: RewardModel
    known: dict[Tokens, list[float]] = field(default_factory=dict, repr=False)

    def engine(self, cache_bytes: int = UNBOUNDED, row_tokens: int = 512) -> PrefixEngine:
        engine = PrefixEngine(deepcopy(self.model), cache_bytes=cache_bytes, context_length=CONTEXT_LENGTH)
        engine.row_tokens = row_tokens
        return engine

    def expected(self, token_ids: Tokens) -> list[float]:
        if token_ids not in self.known:
            self.known[token_ids] = naive_scores(self.model, token_ids)
        return self.known[token_ids]

    def assert_scored(self, engine: PrefixEngine | PaddedEngine, batch: Sequence[Tokens]) -> list[int]:
        """Asserts that every token's score is the naive one; returns the tokens computed for each sequence."""
        scored = engine.score(batch, [range(len(token_ids)) for token_ids in batch])
        for scores, token_ids in zip(scored, batch, strict=True):
            assert scores.raw == pytest.approx(self.expected(token_ids), abs=4e-5), "scores have a deviation of 4"
        return [scores.computed for scores in scored]


def nodes(engine: PrefixEngine) -> Iterator[Node[KV]]:
    stack = [*engine.prefix_cache.root.children.values()]
    while stack:
        yield (node := stack.pop())
        stack.extend(node.children.values())


def assert_at_rest(engine: PrefixEngine) -> None:
    """Asserts that nothing is locked or pending and that the cache counts its bytes right and keeps to its limit."""
    engine.prefix_cache.check()
    held = list(nodes(engine))
    values = [node.value for node in held if node.value is not None]
    tensors = [value.keys_values for value in values]
    told = sum(NODE_BYTES + len(node.token_ids) * CACHED_BYTES for node in held)
    assert all(node.locks == 0 for node in held)
    assert all(tensor.untyped_storage().nbytes() == tensor.shape[3] * KV_BYTES for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    assert engine.prefix_cache.used_bytes == told
    assert engine.prefix_cache.used_bytes + engine.prefix_cache.joined_bytes <= engine.prefix_cache.max_bytes
    assert engine.prefix_cache.joined_bytes == engine._joined_kv.bytes


def new_tokens(engine: PrefixEngine, batch: Sequence[Tokens]) -> list[int]:
    """Returns how many tokens of each sequence neither the cache nor an earlier sequence of the batch has."""
    seen: set[Tokens] = set()
    counts = []
    for token_ids in batch:
        cached = engine.prefix_cache.match(token_ids)
        new = {token_ids[:end] for end in range(cached + 1, len(token_ids) + 1)} - seen
        seen |= new
        counts.append(len(new))
    return counts
