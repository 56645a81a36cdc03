"""Scores of the prefix engine against naive ones, whatever is shared, cached, evicted or cut."""

import gc
import tracemalloc
from array import array

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.node_bytes import NODE_BYTES
from service.engine.prefix_engine import KV
from tests.service.engine.references import Reference, Tokens, assert_at_rest, new_tokens, nodes
from tests.service.engine.sharp_models import CACHED_BYTES, KV_BYTES

WORDS = [(1,), (1, 2), (3, 4, 5, 6), (3, 4, 7, 8, 9, 10, 11, 12)]
"""Parts of sequences; sequences made of them share prefixes, beginnings of nodes, or all their tokens."""
sequences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(lambda words: sum(words, ()))
batches = st.lists(sequences, min_size=1, max_size=5)


def test_the_scores_of_the_reference_models_depend_on_every_earlier_token(reference: Reference) -> None:
    scores, others = (torch.tensor(reference.expected((first, *range(3, 43)))) for first in (1, 2))
    assert (scores - others)[-10:].abs().mean() > 0.1 * scores.std()
    assert 2 < scores.std() < 8


@given(
    calls=st.lists(batches, min_size=1, max_size=4),
    cache_tokens=st.sampled_from([0, 10, 30, 10**6]),
    row_tokens=st.sampled_from([1, 3, 8, 20, 512]),
)
@settings(max_examples=25, deadline=None)
def test_whatever_is_shared_cached_evicted_or_cut_the_scores_are_the_naive_ones(
    reference: Reference, calls: list[list[Tokens]], cache_tokens: int, row_tokens: int
) -> None:
    engine = reference.engine(cache_tokens * (CACHED_BYTES + NODE_BYTES // 4), row_tokens)
    for batch in calls:
        new = new_tokens(engine, batch)
        assert reference.assert_scored(engine, batch) == new
        assert_at_rest(engine)


def test_a_trajectory_scored_step_by_step_is_the_trajectory_scored_at_once(reference: Reference) -> None:
    whole = tuple(range(1, 41))
    engine = reference.engine()
    computed = [reference.assert_scored(engine, [whole[:end]]) for end in (5, 6, 19, 40)]
    assert computed == [[5], [1], [13], [21]]
    assert reference.assert_scored(reference.engine(), [whole]) == [40]


def test_candidates_over_one_history_compute_it_once_and_in_the_next_call_not_at_all(reference: Reference) -> None:
    history = tuple(range(1, 31))
    engine = reference.engine()
    assert reference.assert_scored(engine, [(*history, 9, action) for action in (1, 2, 3)]) == [32, 1, 1]
    assert reference.assert_scored(engine, [(*history, 9, 2, 5, action) for action in (1, 2)]) == [2, 1]
    assert reference.assert_scored(engine, [(*history, 9, 2), history]) == [0, 0]


def test_a_repeated_call_computes_nothing_and_returns_the_same_bits(reference: Reference) -> None:
    engine = reference.engine()
    batch = [(1, 2, 3, 4, 5), (1, 2, 6), (1, 2, 3, 4, 5), (7, 8, 9, 1)]
    reads = [range(len(token_ids)) for token_ids in batch]
    first = engine.score(batch, reads)
    engine.score([(1, 2, 3, 9), (7,)], [[3], [0]])  # splits nodes of the batch
    again = engine.score(batch, reads)
    assert [scores.raw for scores in again] == [scores.raw for scores in first]
    assert [scores.computed for scores in again] == [0, 0, 0, 0]


def test_a_sequence_scores_the_same_alone_and_in_a_batch(reference: Reference) -> None:
    batch = [(5, 4, 3, 2, 1), (5, 4, 9), (8,), (5, 4, 3, 2, 1, 7, 7, 7)]
    reads = [[len(token_ids) - 1] for token_ids in batch]
    for scores, token_ids in zip(reference.engine().score(batch, reads), batch, strict=True):
        (alone,) = reference.engine().score([token_ids], [[len(token_ids) - 1]])
        assert scores.raw == pytest.approx(alone.raw, abs=4e-5)


def test_scores_come_in_the_order_of_the_reads(qwen2: Reference) -> None:
    expected = qwen2.expected((1, 2, 3, 4, 5))
    engine = qwen2.engine(row_tokens=2)
    for _ in range(2):
        scored = engine.score([(1, 2, 3), (1, 2, 3, 4, 5), (1, 2)], [[2], [4, 0, 4, 1], []])
        assert scored[0].raw == pytest.approx([expected[2]], abs=4e-5)
        assert scored[1].raw == pytest.approx([expected[at] for at in (4, 0, 4, 1)], abs=4e-5)
        assert scored[2].raw == []


@given(before=batches, batch=batches)
@settings(max_examples=50, deadline=None)
def test_the_tokens_to_be_computed_are_known_beforehand_for_a_sorted_batch(
    qwen2: Reference, before: list[Tokens], batch: list[Tokens]
) -> None:
    engine = qwen2.engine()
    qwen2.assert_scored(engine, before)
    assert engine.extend_lens(sorted(batch)) == new_tokens(engine, sorted(batch))
    estimates = zip(engine.extend_lens(batch), new_tokens(engine, batch), batch, strict=True)
    assert all(new <= estimate <= len(token_ids) for estimate, new, token_ids in estimates)


def test_cached_trajectories_that_share_little_are_known_to_cost_little(qwen2: Reference) -> None:
    """All share one task and each history is cached: more is cached than a neighbour shares."""
    histories = [(1, 2, *[token] * length) for token, length in ((3, 10), (4, 40), (5, 25))]
    engine = qwen2.engine()
    qwen2.assert_scored(engine, histories)
    assert engine.extend_lens([(*history, 9) for history in histories]) == [1, 1, 1]


def test_joined_copies_of_a_growing_trajectory_are_kept_within_the_budget(qwen2: Reference) -> None:
    whole = tuple(range(1, 41))
    for budget, kept in ((40 * CACHED_BYTES + 4 * NODE_BYTES, False), (1000 * CACHED_BYTES, True)):
        engine = qwen2.engine(budget)
        for end in (10, 20, 30, 40):
            qwen2.assert_scored(engine, [whole[:end]])
            assert engine.prefix_cache.used_bytes + engine.prefix_cache.joined_bytes <= budget
        assert bool(engine.prefix_cache.joined_bytes) == kept


def test_a_trajectory_whose_nodes_were_split_while_it_grew_is_joined_again(qwen2: Reference) -> None:
    whole = tuple(range(1, 41))
    engine = qwen2.engine()
    for end in (10, 20, 30):
        qwen2.assert_scored(engine, [whole[:end]])
    qwen2.assert_scored(engine, [(*whole[:15], 9)])
    qwen2.assert_scored(engine, [(*whole[:20], 9, 8), (*whole[:15], 9, 7)])
    qwen2.assert_scored(engine, [whole])


def test_halves_of_a_split_value_own_their_bytes() -> None:
    value = KV(torch.randn(2, 2, 2, 5, 8), array("f", [0.5, 1.5, 2.5, 3.5, 4.5]))
    left, right = value.split(2)
    assert torch.equal(torch.cat([left.keys_values, right.keys_values], 3), value.keys_values)
    assert left.raw + right.raw == value.raw
    for half, tokens in ((left, 2), (right, 3)):
        assert half.keys_values.untyped_storage().nbytes() == tokens * KV_BYTES
        assert half.bytes == NODE_BYTES + tokens * CACHED_BYTES


def test_the_python_objects_of_small_nodes_are_counted(qwen2: Reference) -> None:
    """Keys and values, and the tensors that hold them, are not Python's; they are counted in addition."""
    engine = qwen2.engine()
    batches = [[(first, second, last) for last in range(50)] for first in range(50) for second in range(4)]
    engine.score(batches[0], [[0]] * 50)
    before = engine.prefix_cache.used_bytes
    tracemalloc.start()
    try:
        for batch in batches[1:]:
            engine.score([tuple(ids) for ids in batch], [[0]] * 50)
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    count = sum(1 for _ in nodes(engine))
    told = engine.prefix_cache.used_bytes - before
    assert traced < told - count * KV_BYTES
