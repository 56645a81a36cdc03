"""Attention joined from parts against a naive softmax over everything at once.

Axes: H query heads, K key/value heads, T queries, N keys, D head size.
"""

from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from service.engine.prefix_cache import Node
from service.engine.row_attention import (
    RowAttention,
    UnsupportedAttentionError,
    _join,
    attend,
    attend_plainly,
    attend_row,
)
from service.engine.row_plan import HeldContext, InnerContext, Row, Segment

SCALE = 0.7
HEADS = pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (4, 4), (4, 2), (6, 1)])


def randn(*shape: int) -> Tensor:
    """Returns values so large that attention is sharp: a key wrongly read or left out shows."""
    return 2 * torch.randn(*shape)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def naive_attention(query_HTD: Tensor, key_KND: Tensor, value_KND: Tensor, may_read_TN: Tensor, scale: float) -> Tensor:
    """Computes softmax(q k * scale) v in float64, a query at a time; query head h reads key head h // (H / K)."""
    query, key, value = query_HTD.double(), key_KND.double(), value_KND.double()
    out = torch.empty(*query.shape[:2], value.shape[-1], dtype=torch.float64)
    groups = query.shape[0] // key.shape[0]
    for head, queries in enumerate(query):
        for position, vector in enumerate(queries):
            reads = may_read_TN[position]
            weights = torch.softmax(key[head // groups][reads] @ vector * scale, 0)
            out[head, position] = weights @ value[head // groups][reads]
    return out.float()


def all_of(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool)


@HEADS
@pytest.mark.parametrize(("queries", "keys", "causal"), [(7, 7, True), (1, 1, True), (5, 11, False), (3, 1, False)])
def test_the_fused_kernel_the_plain_products_and_naive_softmax_agree(
    heads: int, key_heads: int, queries: int, keys: int, *, causal: bool
) -> None:
    query, key, value = randn(1, heads, queries, 8), randn(1, key_heads, keys, 8), randn(1, key_heads, keys, 8)
    may_read = all_of(queries, keys).tril() if causal else all_of(queries, keys)
    out, lse = attend(query, key, value, SCALE, causal=causal)
    each_key, each_value = (part.repeat_interleave(heads // key_heads, 1) for part in (key, value))
    plain, plain_lse = attend_plainly(query, each_key, each_value, SCALE, causal=causal)
    scores = (query @ each_key.transpose(2, 3) * SCALE).masked_fill(~may_read, float("-inf"))
    expected = naive_attention(query[0], key[0], value[0], may_read, SCALE)
    assert_close(out[0], expected, atol=2e-6, rtol=1e-5)
    assert_close(plain[0], expected, atol=2e-6, rtol=1e-5)
    assert_close(lse, scores.logsumexp(-1), atol=2e-6, rtol=1e-5)
    assert_close(plain_lse, scores.logsumexp(-1), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", [attend, attend_plainly])
def test_the_default_scale_is_one_over_the_root_of_the_head_size(attention: Any) -> None:
    query, key, value = randn(1, 2, 3, 16), randn(1, 2, 5, 16), randn(1, 2, 5, 16)
    out, _ = attention(query, key, value, None, causal=False)
    assert_close(out, attention(query, key, value, 0.25, causal=False)[0])


def test_contexts_joined_in_any_order_are_attention_over_all_of_them() -> None:
    """Several contexts: a log-sum-exp that is not updated is right for the first and wrong for the next."""
    query, key, value = randn(1, 4, 6, 8), randn(1, 2, 20, 8), randn(1, 2, 20, 8)
    expected, expected_lse = attend(query, key, value, SCALE, causal=False)
    parts = [
        attend(query, key[:, :, start:end], value[:, :, start:end], SCALE, causal=False)
        for start, end in pairwise([0, 1, 8, 13, 20])
    ]
    for first, *rest in permutations(parts):
        out, lse = first[0].clone(), first[1].clone()
        for part in rest:
            _join(out, lse, 0, part)
        assert_close(out, expected, atol=2e-6, rtol=1e-5)
        assert_close(lse, expected_lse, atol=2e-6, rtol=1e-5)


def test_a_context_far_stronger_or_weaker_than_the_rest_does_not_overflow() -> None:
    query, key, value = randn(1, 1, 1, 8), randn(1, 1, 2, 8), randn(1, 1, 2, 8)
    for strength in (-1e4, 1e4):
        out, lse = attend(query, key[:, :, :1], value[:, :, :1], SCALE, causal=False)
        _join(out, lse, 0, (value[:, :, 1:].clone(), torch.full((1, 1, 1), strength)))
        assert_close(out, value[:, :, :1] if strength < 0 else value[:, :, 1:])


def row_and_mask() -> tuple[Row[None], Tensor]:
    """Returns a row and its mask: two held contexts over a parent, its two children and an unrelated sequence.

    Keys 0-2 and 3-4 are held, keys from 5 on are the row itself: parent 5-7, children 8-9 and 10, unrelated 11-12.
    The unrelated sequence reads the first held context only.
    """
    nodes = [Node[None]((0,) * length, 0, None) for length in (3, 2, 1, 2, 3, 2)]
    parent, child, other, unrelated, above, below = nodes
    segments = (Segment(parent, 0, 3, 0), Segment(child, 0, 2, 3), Segment(other, 0, 1, 5), Segment(unrelated, 0, 2, 6))
    row = Row(
        segments, (HeldContext(((above, 3),), 0, 8), HeldContext(((below, 2),), 0, 6)), (InnerContext(0, 3, 3, 6),)
    )
    may_read = torch.zeros(8, 13, dtype=torch.bool)
    may_read[:, :3] = True
    may_read[:6, 3:5] = True
    may_read[3:6, 5:8] = True
    for part in segments:
        length = part.end - part.start
        may_read[part.row_start : part.row_end, 5 + part.row_start : 5 + part.row_end] = all_of(length, length).tril()
    return row, may_read


@HEADS
def test_a_row_equals_attention_under_a_mask(heads: int, key_heads: int) -> None:
    row, may_read = row_and_mask()
    query, key, value = randn(1, heads, 8, 8), randn(1, key_heads, 13, 8), randn(1, key_heads, 13, 8)
    layer_1 = torch.stack((key[0], value[0]))
    held = [torch.stack((randn(*part.shape), part)) for part in (layer_1[:, :, :3], layer_1[:, :, 3:5])]
    attention = RowAttention(row, held, new=[], context_length=100)
    module: Any = SimpleNamespace(layer_idx=1)
    out_1THD, _ = attend_row(module, query, key[:, :, 5:], value[:, :, 5:], None, scaling=SCALE, row=attention)
    expected = naive_attention(query[0], key[0], value[0], may_read, SCALE)
    assert_close(out_1THD[0].transpose(0, 1), expected, atol=2e-6, rtol=1e-5)
    assert_close(attention.new, [layer_1[:, :, 5:]], atol=0, rtol=0)


@HEADS
def test_without_a_row_attention_is_plain_and_causal(heads: int, key_heads: int) -> None:
    query, key, value = randn(1, heads, 6, 8), randn(1, key_heads, 6, 8), randn(1, key_heads, 6, 8)
    out, _ = attend_row(nn.Module(), query, key, value, None, scaling=SCALE)
    assert_close(out[0].transpose(0, 1), naive_attention(query[0], key[0], value[0], all_of(6, 6).tril(), SCALE))


def attend_one_token(mask: Tensor | None = None, **options: Any) -> None:
    node = Node[None]((0,), 0, None)
    attention = RowAttention(Row((Segment(node, 0, 1, 0),), (), ()), [], new=[], context_length=100)
    module: Any = SimpleNamespace(layer_idx=0)
    query, key, value = randn(3, 1, 1, 1, 8)
    attend_row(module, query, key, value, mask, row=attention, **options)


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias", "sinks", "head_mask"])
def test_an_option_that_changes_scores_is_refused(option: str) -> None:
    with pytest.raises(UnsupportedAttentionError, match=option):
        attend_one_token(**{option: torch.ones(1)})


def test_a_mask_passed_by_the_model_is_refused() -> None:
    with pytest.raises(UnsupportedAttentionError, match="mask"):
        attend_one_token(torch.ones(1, 1, 1, 1))


def test_a_window_shorter_than_the_longest_sequence_is_refused() -> None:
    with pytest.raises(UnsupportedAttentionError, match="window of 99 is shorter than 100"):
        attend_one_token(sliding_window=99)


def test_options_that_change_no_score_are_accepted() -> None:
    attend_one_token(sliding_window=100, dropout=0.0, softcap=None)
    attend_one_token(sliding_window=None)
