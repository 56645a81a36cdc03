"""Attention over a planned row, plugged into any transformers model that takes an attention function.

Each segment of the row attends to itself causally, each context is attended to in full, and the parts are joined by
their log-sum-exps: exact attention without a mask and without copying a shared prefix for those who share it.

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
    """The model's attention does something that rows do not: its scores would be wrong."""


@dataclass(slots=True)
class RowAttention:
    """What the layers read and leave behind while a row is computed.

    ``held`` is the KV of each of the row's held contexts [L, 2, K, N, D]; ``new`` [L, 2, K, T, D] is filled by the
    layers; ``longest`` is the longest sequence that may ever be asked for, to refuse models with a shorter window.
    """

    row: Row[Any]
    held: Sequence[Tensor]
    new: list[Tensor]
    longest: int


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
    """A transformers attention function; without ``row`` it is plain causal attention."""
    if row is None:
        out = scaled_dot_product_attention(
            query_1HTD, key_1KTD, value_1KTD, is_causal=True, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2), None
    _refuse_unsupported(attention_mask, options, row.longest)
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
    """Attention [1, H, T, D] and its log-sum-exp [1, H, T]; ``causal`` only for as many keys as queries."""
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
    """The same in two matrix products, where there is no fused kernel; as many key heads as query heads."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    lse = scores.float().logsumexp(-1)
    return (scores.float() - lse[..., None]).exp().to(value.dtype) @ value, lse


def _own(query: Tensor, key: Tensor, value: Tensor, row: Row[Any], scale: float | None) -> tuple[Tensor, Tensor]:
    if len(row.segments) == 1:
        return attend(query, key, value, scale, causal=True)
    places = [slice(segment.row_start, segment.row_end) for segment in row.segments]
    parts = [attend(query[:, :, own], key[:, :, own], value[:, :, own], scale, causal=True) for own in places]
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def _join(out: Tensor, lse: Tensor, first: int, context: tuple[Tensor, Tensor]) -> None:
    """Adds a context to the queries from ``first`` on, in place. The running log-sum-exp must grow with it."""
    more, more_lse = context
    into, into_lse = out[:, :, first : first + more.shape[2]], lse[:, :, first : first + more.shape[2]]
    share = torch.sigmoid(more_lse - into_lse)
    into.lerp_(more, share[..., None].to(into.dtype))
    torch.logaddexp(into_lse, more_lse, out=into_lse)


def _refuse_unsupported(attention_mask: Tensor | None, options: dict[str, Any], longest: int) -> None:
    if attention_mask is not None:
        raise UnsupportedAttentionError("the model brings a mask of its own")
    for name in _CHANGES_SCORES:
        if options.get(name) is not None:
            raise UnsupportedAttentionError(f"the model's attention has {name}")
    window = options.get("sliding_window")
    if window is not None and window < longest:
        raise UnsupportedAttentionError(f"the model's attention window of {window} is shorter than {longest} tokens")
