"""Attention over rows that lie end to end in one sequence: each row attends to itself causally, and to no other.

No mask is built, and none is needed. Axes: H heads, K key/value heads, T tokens, D head size.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME: Final = "agentprm_packed"
_UNSUPPORTED: Final = ("softcap", "s_aux", "position_bias", "sinks", "head_mask")


class UnsupportedAttentionError(Exception):
    """The model's attention has a feature that packed rows lack."""


def attend_packed(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Sequence[int],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes attention as transformers calls it. ``row_lengths`` are the tokens of each row, T in all.

    Returns the output [1, T, H, D], and None in place of attention weights.

    Raises:
        UnsupportedAttentionError: the model passes a mask or an option that changes scores.
    """
    del module
    if attention_mask is not None:
        raise UnsupportedAttentionError("the model brings a mask of its own")
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise UnsupportedAttentionError(f"the model's attention has {name}")
    lengths = list(row_lengths)
    queries, keys, values = (torch.split(tensor, lengths, 2) for tensor in (query_1HTD, key_1KTD, value_1KTD))
    rows = zip(queries, keys, values, strict=True)
    outs = [_attend(query, key, value, scaling, sliding_window) for query, key, value in rows]
    return torch.cat(outs, 2).transpose(1, 2), None


AttentionInterface.register(NAME, attend_packed)


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    mask = None
    if window is not None and window < query.shape[2]:
        places = torch.arange(query.shape[2], device=query.device)
        distance = places[:, None] - places[None]
        mask = (distance >= 0) & (distance < window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )
