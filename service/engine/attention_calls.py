"""The attention that each layer of a model asks of transformers: its masks, read at the full context.

A mask is a rule for pairs of positions. So it is known for the longest sequence without a forward of that length.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from model_store.network.model import RewardModel
from service.engine.row_attention import attend_row
from service.engine.sample_tokens import sample_tokens

Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Indices of sequence, head, query and key, which broadcast -> whether the query reads the key."""

_NAME: Final = "agentprm_attention_calls"
_TOKENS: Final = 4


class Call(NamedTuple):
    """One call of attention: the number of its layer, and its mask; None: it is causal."""

    layer: int
    mask: Mask | None


@dataclass
class _Watch:
    masks: list[Mask] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


_watch: ContextVar[_Watch] = ContextVar("watch")


@torch.inference_mode()
def attention_calls(model: RewardModel) -> list[Call]:
    """Returns the calls of one forward of the backbone, in order. Keeps the model's attention function."""
    backbone = model.backbone
    with _watched() as watch:
        attention = backbone.config._attn_implementation  # noqa: SLF001  (transformers has no public reader)
        backbone.set_attn_implementation(_NAME)
        try:
            model.hidden(sample_tokens(backbone, _TOKENS))
        finally:
            backbone.set_attn_implementation(attention)
    return watch.calls


def fewest_read(mask: Mask, context_length: int, device: torch.device) -> int:
    """Returns the fewest tokens, itself included, that a token reads which does not read all tokens before it.

    Returns ``context_length`` if each token reads all before it, and 0 if one reads later tokens. Decided by the
    first, the middle and the last token of the context.
    """
    keys = torch.arange(context_length, device=device)
    queries = torch.tensor([0, context_length // 2, context_length - 1], device=device)
    zero = torch.zeros((1, 1), dtype=torch.long, device=device)
    read = mask(zero, zero, queries[:, None], keys[None]).expand(len(queries), context_length)
    causal = keys[None] <= queries[:, None]
    if torch.equal(read, causal):
        return context_length
    if (read & ~causal).any():
        return 0
    return int(read.sum(1)[(read != causal).any(1)].min())


@contextmanager
def _watched() -> Iterator[_Watch]:
    watch = _Watch()
    reset = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(reset)


def _note_mask(*, mask_function: Mask, q_length: int, kv_length: int, **_: Any) -> Tensor:
    """Notes a mask and returns its number in the place of its values: the result of this forward does not matter."""
    masks = _watch.get().masks
    masks.append(mask_function)
    return torch.full((1, 1, q_length, kv_length), len(masks) - 1)


def _note_call(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    watch, layer = _watch.get(), module.layer_idx
    assert isinstance(layer, int)
    mask = None if attention_mask is None else watch.masks[int(attention_mask.flatten()[0])]
    watch.calls.append(Call(layer, mask))
    return attend_row(module, query, key, value, None, scaling=options.get("scaling"))


AttentionInterface.register(_NAME, _note_call)
AttentionMaskInterface.register(_NAME, _note_mask)
