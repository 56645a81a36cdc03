"""Attention over a planned row, for any transformers model that takes an attention function.

Each segment of the row attends to itself causally and to each of its contexts in full. The parts are joined by their
log-sum-exps. The result is exact, needs no mask, and copies no shared prefix for the sequences that share it.

Axes: L layers, H heads, K key/value heads, T tokens of a row, N tokens of a context, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from service.engine.row_plan import Row

NAME: Final = "agentprm_row"
_CHANGES_SCORES: Final = ("softcap", "s_aux", "position_bias", "sinks", "head_mask")


class UnsupportedAttentionError(Exception):
    """The model's attention has a feature that rows lack, so its scores would be wrong."""


@dataclass(slots=True)
class RowAttention:
    """Input and output of the attention layers for one row."""

    row: Row[Any]
    held: Sequence[Tensor]
    """KV of each of the row's held contexts, [L, 2, K, N, D]."""
    new: list[Tensor]
    """KV of the row, [2, K, T, D] for each layer; the layers append it."""
    context_length: int
    """Tokens of the longest sequence that will be scored; a model with a shorter attention window is refused."""


def attend_row(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    row: RowAttention | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes attention as transformers calls it; without ``row``, plain causal attention.

    Returns the output [1, T, H, D], and None in place of attention weights.

    Raises:
        UnsupportedAttentionError: the model passes a mask, an option that changes scores, or a short window.
    """
    if row is None:
        out = scaled_dot_product_attention(
            query_1HTD, key_1KTD, value_1KTD, is_causal=True, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2), None
    _refuse_unsupported(attention_mask, options, row.context_length)
    layer: Any = module.layer_idx
    row.new.append(torch.stack((key_1KTD[0], value_1KTD[0])))
    out, lse = _own(query_1HTD, key_1KTD, value_1KTD, row.row, scaling)
    for context, kv in zip(row.row.held, row.held, strict=True):
        part = query_1HTD[:, :, context.row_start : context.row_end]
        _join(out, lse, context.row_start, attend(part, kv[layer, 0][None], kv[layer, 1][None], scaling, causal=False))
    for inner in row.row.inner:
        part = query_1HTD[:, :, inner.row_start : inner.row_end]
        key, value = key_1KTD[:, :, inner.start : inner.end], value_1KTD[:, :, inner.start : inner.end]
        _join(out, lse, inner.row_start, attend(part, key, value, scaling, causal=False))
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, attend_row)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Returns attention [1, H, T, D] and its log-sum-exp [1, H, T]; ``causal`` needs as many keys as queries.

    The operators are private, because no public fused kernel of torch returns the log-sum-exp on a CPU.
    """
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            query, key, value, 0.0, causal, scale=scale
        )
        return out, lse
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.dtype in (torch.float16, torch.bfloat16):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            query, key, value, 0.0, causal, scale=scale
        )
        return out, lse
    return attend_plainly(query, key, value, scale, causal=causal)


def attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Returns the same as ``attend`` by two matrix products, for dtypes without a fused kernel; H equals K."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    lse = scores.float().logsumexp(-1)
    return (scores.float() - lse[..., None]).exp().to(value.dtype) @ value, lse


def _own(query: Tensor, key: Tensor, value: Tensor, row: Row[Any], scale: float | None) -> tuple[Tensor, Tensor]:
    """Returns the causal attention of every segment to itself, and its log-sum-exp."""
    if len(row.segments) == 1:
        return attend(query, key, value, scale, causal=True)
    spans = [slice(segment.row_start, segment.row_end) for segment in row.segments]
    parts = [attend(query[:, :, span], key[:, :, span], value[:, :, span], scale, causal=True) for span in spans]
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def _join(out: Tensor, lse: Tensor, row_start: int, context: tuple[Tensor, Tensor]) -> None:
    """Adds a context's attention to the queries from ``row_start`` on: updates ``out`` and ``lse`` in place."""
    context_out, context_lse = context
    queries = slice(row_start, row_start + context_out.shape[2])
    row_out, row_lse = out[:, :, queries], lse[:, :, queries]
    share = torch.sigmoid(context_lse - row_lse)
    row_out.lerp_(context_out, share[..., None].to(row_out.dtype))
    torch.logaddexp(row_lse, context_lse, out=row_lse)


def _refuse_unsupported(attention_mask: Tensor | None, options: dict[str, Any], context_length: int) -> None:
    if attention_mask is not None:
        raise UnsupportedAttentionError("the model brings a mask of its own")
    for name in _CHANGES_SCORES:
        if options.get(name) is not None:
            raise UnsupportedAttentionError(f"the model's attention has {name}")
    window = options.get("sliding_window")
    if window is not None and window < context_length:
        raise UnsupportedAttentionError(
            f"the model's attention window of {window} is shorter than {context_length} tokens"
        )
