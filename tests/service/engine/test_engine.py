"""Fast scores against naive ones, whatever is shared, cached, evicted, cut or interrupted.

The reference is a copy of the model from before the engine changed its attention, one sequence a forward.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from agentprm.errors import AgentPRMError
from model_store.network.model import RewardModel
from service.engine import probe, row_attention
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_cache import Node
from service.engine.prefix_engine import KV, PrefixEngine
from service.engine.row_plan import Row
from service.engine.selection import choose_engine, load_engine
from tests.service.engine.sharp_models import KV_BYTES, SHAPE, naive_scores, sharp_model

Tokens = tuple[int, ...]
FAMILIES: list[type[PreTrainedConfig]] = [Qwen2Config, Qwen3Config, LlamaConfig, MistralConfig, GemmaConfig]
UNBOUNDED = 10**9
LONGEST = SHAPE["max_position_embeddings"]
WORDS = [(1,), (1, 2), (3, 4, 5, 6), (3, 4, 7, 8, 9, 10, 11, 12)]
"""Sequences made of these have prefixes, beginnings of nodes and whole sequences in common."""
sequences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(lambda words: sum(words, ()))
batches = st.lists(sequences, min_size=1, max_size=5)


@dataclass
class Rig:
    """A model and what it scores by definition."""

    model: RewardModel
    known: dict[Tokens, list[float]] = field(default_factory=dict, repr=False)

    def engine(self, cache_bytes: int = UNBOUNDED, row_tokens: int = 512) -> PrefixEngine:
        engine = PrefixEngine(deepcopy(self.model), cache_bytes=cache_bytes, context_length=LONGEST)
        engine.row_tokens = row_tokens
        return engine

    def expected(self, token_ids: Tokens) -> list[float]:
        if token_ids not in self.known:
            self.known[token_ids] = naive_scores(self.model, token_ids)
        return self.known[token_ids]

    def assert_scored(self, engine: PrefixEngine | PaddedEngine, batch: Sequence[Tokens]) -> list[int]:
        """Every token's score is the naive one; returns the tokens computed for each sequence."""
        scored = engine.score(batch, [range(len(token_ids)) for token_ids in batch])
        for scores, token_ids in zip(scored, batch, strict=True):
            assert scores.raw == pytest.approx(self.expected(token_ids), abs=4e-5), "scores have a deviation of 4"
        return [scores.computed for scores in scored]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.model_type)
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(sharp_model(request.param))


@pytest.fixture(scope="module")
def qwen2() -> Rig:
    return Rig(sharp_model(Qwen2Config))


def nodes(engine: PrefixEngine) -> Iterator[Node[KV]]:
    stack = [*engine.prefix_cache.root.children.values()]
    while stack:
        yield (node := stack.pop())
        stack.extend(node.children.values())


def assert_at_rest(engine: PrefixEngine) -> None:
    """Nothing locked or pending, the budget kept, and the bytes that are counted are those that are allocated."""
    engine.prefix_cache.check()
    held = list(nodes(engine))
    values = [node.value for node in held if node.value is not None]
    tensors = [tensor for value in values for tensor in value]
    assert all(node.locks == 0 for node in held)
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == engine.prefix_cache.used_bytes
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    assert engine.prefix_cache.used_bytes == sum(len(node.token_ids) for node in held) * KV_BYTES
    assert engine.prefix_cache.used_bytes + engine.prefix_cache.joined_bytes <= engine.prefix_cache.max_bytes
    assert engine.prefix_cache.joined_bytes == engine._joined_kv.bytes


def new_tokens(engine: PrefixEngine, batch: Sequence[Tokens]) -> list[int]:
    """By definition: a token that is neither held nor in an earlier sequence of the batch, after the same prefix."""
    seen: set[Tokens] = set()
    counts = []
    for token_ids in batch:
        held = engine.prefix_cache.match(token_ids)
        new = {token_ids[:end] for end in range(held + 1, len(token_ids) + 1)} - seen
        seen |= new
        counts.append(len(new))
    return counts


def test_the_models_of_these_tests_depend_on_every_token_before(rig: Rig) -> None:
    one, other = (torch.tensor(rig.expected((first, *range(3, 43)))) for first in (1, 2))
    assert (one - other)[-10:].abs().mean() > 0.1 * one.std()
    assert 2 < one.std() < 8


@given(
    calls=st.lists(batches, min_size=1, max_size=4),
    cache_tokens=st.sampled_from([0, 10, 30, 10**6]),
    row_tokens=st.sampled_from([1, 3, 8, 20, 512]),
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_shared_cached_evicted_or_cut_the_scores_are_the_naive_ones(
    rig: Rig, calls: list[list[Tokens]], cache_tokens: int, row_tokens: int
) -> None:
    engine = rig.engine(cache_tokens * KV_BYTES, row_tokens)
    for batch in calls:
        new = new_tokens(engine, batch)
        assert rig.assert_scored(engine, batch) == new
        assert_at_rest(engine)


def test_a_trajectory_scored_step_by_step_is_the_trajectory_scored_at_once(rig: Rig) -> None:
    whole = tuple(range(1, 41))
    engine = rig.engine()
    computed = [rig.assert_scored(engine, [whole[:end]]) for end in (5, 6, 19, 40)]
    assert computed == [[5], [1], [13], [21]]
    assert rig.assert_scored(rig.engine(), [whole]) == [40]


def test_candidates_over_one_history_compute_it_once_and_in_the_next_call_not_at_all(rig: Rig) -> None:
    history = tuple(range(1, 31))
    engine = rig.engine()
    assert rig.assert_scored(engine, [(*history, 9, action) for action in (1, 2, 3)]) == [32, 1, 1]
    assert rig.assert_scored(engine, [(*history, 9, 2, 5, action) for action in (1, 2)]) == [2, 1]
    assert rig.assert_scored(engine, [(*history, 9, 2), history]) == [0, 0]


def test_a_repeated_call_computes_nothing_and_returns_the_same_bits(rig: Rig) -> None:
    engine = rig.engine()
    batch = [(1, 2, 3, 4, 5), (1, 2, 6), (1, 2, 3, 4, 5), (7, 8, 9, 1)]
    reads = [range(len(token_ids)) for token_ids in batch]
    first = engine.score(batch, reads)
    # Beside what splits their nodes, too.
    engine.score([(1, 2, 3, 9), (7,)], [[3], [0]])
    again = engine.score(batch, reads)
    assert [scores.raw for scores in again] == [scores.raw for scores in first]
    assert [scores.computed for scores in again] == [0, 0, 0, 0]


def test_a_sequence_scores_the_same_alone_and_in_company(rig: Rig) -> None:
    batch = [(5, 4, 3, 2, 1), (5, 4, 9), (8,), (5, 4, 3, 2, 1, 7, 7, 7)]
    for scores, token_ids in zip(rig.engine().score(batch, [[len(one) - 1] for one in batch]), batch, strict=True):
        (alone,) = rig.engine().score([token_ids], [[len(token_ids) - 1]])
        assert scores.raw == pytest.approx(alone.raw, abs=4e-5)


def test_scores_come_in_the_order_of_the_reads(qwen2: Rig) -> None:
    expected = qwen2.expected((1, 2, 3, 4, 5))
    engine = qwen2.engine(row_tokens=2)
    for _ in range(2):
        scored = engine.score([(1, 2, 3), (1, 2, 3, 4, 5), (1, 2)], [[2], [4, 0, 4, 1], []])
        assert scored[0].raw == pytest.approx([expected[2]], abs=4e-5)
        assert scored[1].raw == pytest.approx([expected[at] for at in (4, 0, 4, 1)], abs=4e-5)
        assert scored[2].raw == []


@given(before=batches, batch=batches)
@settings(max_examples=50, deadline=None)
def test_the_tokens_to_be_computed_are_known_before_where_relatives_stand_together(
    qwen2: Rig, before: list[Tokens], batch: list[Tokens]
) -> None:
    engine = qwen2.engine()
    qwen2.assert_scored(engine, before)
    assert engine.extend_lens(sorted(batch)) == new_tokens(engine, sorted(batch))
    estimates = zip(engine.extend_lens(batch), new_tokens(engine, batch), batch, strict=True)
    assert all(new <= estimate <= len(token_ids) for estimate, new, token_ids in estimates)


def test_trajectories_that_share_little_and_are_held_are_known_to_cost_little(qwen2: Rig) -> None:
    """The task is the same, each history is held: what the neighbour shares is not all that is there already."""
    histories = [(1, 2, *[token] * length) for token, length in ((3, 10), (4, 40), (5, 25))]
    engine = qwen2.engine()
    qwen2.assert_scored(engine, histories)
    assert engine.extend_lens([(*history, 9) for history in histories]) == [1, 1, 1]


def test_joined_copies_of_a_growing_trajectory_are_kept_within_the_budget(qwen2: Rig) -> None:
    whole = tuple(range(1, 41))
    for budget, kept in ((40 * KV_BYTES, False), (1000 * KV_BYTES, True)):
        engine = qwen2.engine(budget)
        for end in (10, 20, 30, 40):
            qwen2.assert_scored(engine, [whole[:end]])
            assert engine.prefix_cache.used_bytes + engine.prefix_cache.joined_bytes <= budget
        assert bool(engine.prefix_cache.joined_bytes) == kept


def test_a_trajectory_that_was_split_while_it_grew_is_joined_anew(qwen2: Rig) -> None:
    whole = tuple(range(1, 41))
    engine = qwen2.engine()
    for end in (10, 20, 30):
        qwen2.assert_scored(engine, [whole[:end]])
    qwen2.assert_scored(engine, [(*whole[:15], 9)])
    qwen2.assert_scored(engine, [(*whole[:20], 9, 8), (*whole[:15], 9, 7)])
    qwen2.assert_scored(engine, [whole])


class OutOfMemory(Exception):
    pass


@contextmanager
def failing(model: RewardModel, forwards: int) -> Iterator[None]:
    """The model raises in the forward after so many."""
    left = iter(range(forwards))

    def forward(*_: object) -> None:
        if next(left, None) is None:
            raise OutOfMemory

    with model.backbone.get_submodule("layers.1").register_forward_pre_hook(forward):
        yield


@pytest.mark.parametrize("forwards", range(4))
@pytest.mark.parametrize("cache_bytes", [0, UNBOUNDED])
def test_after_a_failed_forward_nothing_is_locked_and_the_next_call_is_right(
    qwen2: Rig, forwards: int, cache_bytes: int
) -> None:
    model = deepcopy(qwen2.model)
    engine = PrefixEngine(model, cache_bytes=cache_bytes, context_length=LONGEST)
    engine.row_tokens = 4
    qwen2.assert_scored(engine, [(1, 2, 3, 4, 5)])
    batch = [(1, 2, 3, 9, 9, 9), (1, 2, 3, 9, 8), (6,) * 11]
    with failing(model, forwards), pytest.raises(OutOfMemory):
        engine.score(batch, [[0]] * 3)
    assert_at_rest(engine)
    new = new_tokens(engine, batch)
    assert qwen2.assert_scored(engine, batch) == new
    assert_at_rest(engine)


def test_a_call_that_asks_for_what_is_not_there_leaves_nothing_locked(qwen2: Rig) -> None:
    engine = qwen2.engine()
    with pytest.raises(ValueError, match="empty sequence"):
        engine.score([(1, 2), ()], [[1], []])
    with pytest.raises(IndexError):
        engine.score([(1, 2), (3,)], [[1], [1]])
    with pytest.raises(ValueError, match="shorter"):
        engine.score([(1, 2), (3,)], [[1]])
    assert_at_rest(engine)
    qwen2.assert_scored(engine, [(1, 2), (3,)])


def test_halves_of_a_split_value_own_their_bytes() -> None:
    value = KV(torch.randn(2, 2, 2, 5, 8), torch.randn(5))
    left, right = value.split(2)
    assert torch.equal(torch.cat([left.keys_values, right.keys_values], 3), value.keys_values)
    assert torch.equal(torch.cat([left.raw, right.raw]), value.raw)
    for half, tokens in ((left, 2), (right, 3)):
        assert half.bytes == tokens * KV_BYTES == sum(tensor.untyped_storage().nbytes() for tensor in half)


def name_of(value: Any) -> str:
    return getattr(value, "model_type", "")


BATCH = [tuple(range(1, length)) for length in (30, 12, 50, 5)] + [(*range(1, 25), 7, 7), (9,) * 60]
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
LINEAR = {f"linear_{name}": size for name, size in [("num_value_heads", 2), ("num_key_heads", 2)]}
LINEAR |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16}
LONGROPE |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}


@pytest.mark.parametrize(
    ("config", "shape", "why"),
    [
        (MistralConfig, {"sliding_window": 63}, "window of 63 is shorter than 64"),
        (MistralConfig, {"sliding_window": 8}, "window of 8"),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "window of 8"),
        (Gemma3TextConfig, {"sliding_window": 8}, "window of 8"),
        (Gemma2Config, {"sliding_window": 64}, "softcap"),
        (GptOssConfig, {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64}, "s_aux"),
        (Qwen3NextConfig, {"num_hidden_layers": 4, "num_experts": 4, **MOE, **LINEAR}, "out of bounds"),
        (LlamaConfig, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rotary"),
        (LlamaConfig, {"rope_parameters": LONGROPE}, "rotary"),
    ],
    ids=name_of,
)
def test_a_model_whose_attention_cannot_be_joined_is_scored_in_padded_rows(
    config: type[PreTrainedConfig], shape: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(sharp_model(config, **shape))
    chosen = choose_engine(deepcopy(rig.model), prefix_cache_bytes=UNBOUNDED, context_length=LONGEST)
    assert isinstance(chosen, PaddedEngine)
    assert why in caplog.text
    assert rig.assert_scored(chosen, BATCH) == chosen.extend_lens(BATCH) == [len(token_ids) for token_ids in BATCH]


def test_padding_is_what_goes_through_the_model_beside_the_tokens(qwen2: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    padded, through = PaddedEngine(deepcopy(qwen2.model)), []
    forward = RewardModel.forward

    def counted(model: RewardModel, token_ids_BT: torch.Tensor, **options: Any) -> torch.Tensor:
        through.append(token_ids_BT.numel())
        return forward(model, token_ids_BT, **options)

    monkeypatch.setattr(RewardModel, "forward", counted)
    for row_tokens, some in ((512, True), (60, True), (1, False)):
        padded.row_tokens, before = row_tokens, padded.padding_tokens
        through.clear()
        padded.score(BATCH, [[0]] * len(BATCH))
        assert padded.padding_tokens - before == sum(through) - sum(map(len, BATCH))
        assert (padded.padding_tokens > before) == some


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        *((family, {}) for family in FAMILIES),
        (MistralConfig, {"sliding_window": 64}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}),
        (Gemma3TextConfig, {"sliding_window": 64}),
    ],
    ids=name_of,
)
def test_a_model_whose_window_holds_the_context_shares_prefixes(
    config: type[PreTrainedConfig], shape: dict[str, Any]
) -> None:
    rig = Rig(sharp_model(config, **shape))
    chosen = choose_engine(deepcopy(rig.model), prefix_cache_bytes=UNBOUNDED, context_length=LONGEST)
    assert isinstance(chosen, PrefixEngine)
    assert chosen.prefix_cache.used_bytes == 0, "the probe leaves nothing behind"
    assert sum(rig.assert_scored(chosen, BATCH)) == sum(new_tokens(rig.engine(), BATCH))


join, attend = row_attention._join, row_attention.attend
MISTAKES: dict[str, tuple[object, str, object]] = {
    "contexts left out": (row_attention, "_join", lambda *_: None),
    "contexts joined without their weight": (
        row_attention,
        "_join",
        lambda out, lse, *context: join(out, lse.clone(), *context),
    ),
    "positions of the row": (Row, "positions", lambda row: list(range(row.tokens))),
    "siblings that see each other": (
        row_attention,
        "_own",
        lambda q, k, v, _, scale: attend(q, k, v, scale, causal=True),
    ),
    "a model that raises": (row_attention, "_own", lambda *_: 1 / 0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_engine_that_is_subtly_wrong_is_refused(
    qwen2: Rig, mistake: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(where, name, wrong)
    chosen = choose_engine(deepcopy(qwen2.model), prefix_cache_bytes=UNBOUNDED, context_length=LONGEST)
    assert isinstance(chosen, PaddedEngine)
    assert "prefixes are not shared for Qwen2Model" in caplog.text
    qwen2.assert_scored(chosen, BATCH)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_shares_prefixes_within_its_own_noise(dtype: torch.dtype) -> None:
    model = sharp_model(Qwen2Config)
    backbone: torch.nn.Module = model.backbone
    backbone.to(dtype)
    rig = Rig(model)
    chosen = choose_engine(deepcopy(model), prefix_cache_bytes=UNBOUNDED, context_length=LONGEST)
    assert isinstance(chosen, PrefixEngine)
    for scores, token_ids in zip(chosen.score(BATCH, [range(len(one)) for one in BATCH]), BATCH, strict=True):
        assert scores.raw == pytest.approx(rig.expected(token_ids), abs=4 * probe.TOLERANCE[dtype])


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="there are that many")
def test_a_device_that_is_not_there_is_one_sentence() -> None:
    checkpoint: Any = None
    with pytest.raises(AgentPRMError, match="device cuda:7 is not there"):
        load_engine(checkpoint, "cuda:7", "auto", prefix_cache_bytes=0, cpu_threads=1)
