"""Linear layers packed for oneDNN on a CPU: weights in its blocked layout, converted once at load.

torch passes float32 products to a library that uses the widest vectors on some makers' processors only. oneDNN uses
what the processor has, but it sums a whole row in one float, and on a long row that doubles the rounding error. So a
layer is cut along its inputs and the parts are added. Scores stay as accurate as those of the plain layer.
"""

import logging
from typing import Final, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.engine.sample_tokens import sample_tokens

logger = logging.getLogger(__name__)
INPUTS_TOGETHER: Final = 192
"""Inputs of one part: fewer cost time, more make the rounding error larger than the plain layer's."""
_ROWS: Final = 64
"""Tokens of a forward for which the layout is fastest; it is correct for any number."""
_CHECKED_TOKENS: Final = 16
_TOLERANCE: Final = 1e-3
"""Share of the hidden states' size by which packing may change them: far above rounding, far below a wrong layer."""


class PackedLinear(nn.Module):
    """Computes x [..., I] -> x W^T + b [..., O] in float32 on a CPU. Only oneDNN can compute with its weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight_was_read = False
        parts = -(-linear.in_features // INPUTS_TOGETHER)
        # Not buffers: torch cannot save, move or cast tensors in the layout of oneDNN.
        self._weights = [_pack(part) for part in linear.weight.detach().chunk(parts, 1)]
        self._widths = [part.shape[1] for part in self._weights]
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """The plain weights [O, I], converted at each reading, for a model that computes with them on its own."""
        self.weight_was_read = True
        return torch.cat([weight.to_dense() for weight in self._weights], 1)

    def unpack(self) -> nn.Linear:
        """Returns the plain layer, with exactly the weights that were packed."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(self.weight, requires_grad=False)
        linear.bias = self.bias
        return linear

    def forward(self, x: Tensor) -> Tensor:
        first, *others = zip(torch.split(x, self._widths, -1), self._weights, strict=True)
        out = _multiply(*first, self.bias)
        for part, weight in others:
            out += _multiply(part, weight, None)
        return out


def pack_where_equal(backbone: PreTrainedModel) -> None:
    """Packs the linear layers of a model, except those that it does not call but reads the weights of.

    Some models multiply with the weights of a layer themselves, as Mamba does. A forward of a few tokens shows which
    layers these are, and whether the hidden states stay the same. If they do not, every layer stays plain.
    """
    if not _packable(backbone):
        return
    plain = _hidden(backbone)
    pack_linears(backbone)
    name = type(backbone).__name__
    if (reason := _why_not(backbone, plain)) is not None:
        unpack_linears(backbone)
        logger.warning("linear layers of %s stay plain: %s", name, reason)
    elif read := unpack_linears(backbone, only_read=True):
        logger.info("%d linear layers of %s stay plain: the model reads their weights", read, name)


def pack_linears(module: nn.Module) -> int:
    """Replaces the float32 linear layers below ``module`` that are on a CPU, for inference; returns how many.

    Frees the plain weights. Leaves layers of other devices and dtypes alone, and all layers if torch has no oneDNN.
    """
    packable = _packable(module)
    for parent, name, linear in packable:
        setattr(parent, name, PackedLinear(linear))
    return len(packable)


def unpack_linears(module: nn.Module, *, only_read: bool = False) -> int:
    """Puts plain layers back, all or only those whose weights were read; returns how many."""
    packed = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, PackedLinear) and (child.weight_was_read or not only_read)
    ]
    for parent, name, layer in packed:
        setattr(parent, name, layer.unpack())
    return len(packed)


def _packable(module: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Returns the layers that can be packed, each with its parent and its name there."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if _is_plain(child) and child.weight.device.type == "cpu" and child.weight.dtype == torch.float32
    ]


@torch.inference_mode()
def _hidden(backbone: PreTrainedModel) -> Tensor:
    """Returns the last hidden states [T, H] of a few tokens."""
    token_ids = sample_tokens(backbone, _CHECKED_TOKENS)
    hidden: Tensor = backbone(input_ids=token_ids, use_cache=False).last_hidden_state[0]
    return hidden


def _why_not(backbone: PreTrainedModel, plain: Tensor) -> str | None:
    """Returns why the packed model is not the plain one; most tokens decide, for rounding may choose other experts."""
    try:
        changes = (_hidden(backbone) - plain).norm(dim=-1) / plain.norm(dim=-1)
    except Exception as error:  # noqa: BLE001  (a model may use a layer in any way)
        return str(error) or type(error).__name__
    change = float(changes.median())
    return None if change < _TOLERANCE else f"its hidden states change by {change:.2g} of their size"


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Returns whether layer and weight are of the plain classes: a quantised weight reports its original dtype."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter


def _pack(weight: Tensor) -> Tensor:
    """Converts weights by a private operator, because torch has no public one for float32 weights and oneDNN."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)  # noqa: SLF001
    return packed


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return out
