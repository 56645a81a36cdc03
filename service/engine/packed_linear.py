"""Linear layers packed for oneDNN on a CPU: weights in its blocked layout, converted once at load.

torch passes float32 products to a library that uses the widest vectors on some makers' processors only. oneDNN uses
what the processor has, but it sums a whole row in one float, and on a long row that doubles the rounding error. So a
layer is cut along its inputs and the parts are added. Scores stay as accurate as those of the plain layer.
"""

from typing import Final, TypeGuard

import torch
from torch import Tensor, nn

INPUTS_TOGETHER: Final = 192
"""Inputs of one part: fewer cost time, more make the rounding error larger than the plain layer's."""
_ROWS: Final = 64
"""Tokens of a forward for which the layout is fastest; it is correct for any number."""


class PackedLinear(nn.Module):
    """Computes x [..., I] -> x W^T + b [..., O] in float32 on a CPU. Only oneDNN can read its weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        parts = -(-linear.in_features // INPUTS_TOGETHER)
        # Not buffers: torch cannot save, move or cast tensors in the layout of oneDNN.
        self._weights = [_pack(part) for part in linear.weight.detach().chunk(parts, 1)]
        self._widths = [part.shape[1] for part in self._weights]
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        first, *others = zip(torch.split(x, self._widths, -1), self._weights, strict=True)
        out = _multiply(*first, self.bias)
        for part, weight in others:
            out += _multiply(part, weight, None)
        return out


def pack_linears(module: nn.Module) -> int:
    """Replaces the float32 linear layers below ``module`` that are on a CPU, for inference; returns how many.

    Frees the plain weights. Leaves layers of other devices and dtypes alone, and all layers if torch has no oneDNN.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    packed = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _is_plain(child) and child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(parent, name, PackedLinear(child))
                packed += 1
    return packed


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
