"""Linear layers as oneDNN multiplies them fastest on a CPU: weights in its blocked layout, laid out once at load.

torch hands float32 products to a library that uses the widest vectors of some makers' processors only; oneDNN asks
the processor. It adds up a whole row in one float, though, which costs twice the rounding of the plain layer on a long
one. So a layer is cut along its inputs and the parts are added: scores stay as near the truth as the plain ones.
"""

from typing import Final, TypeGuard

import torch
from torch import Tensor, nn

INPUTS_TOGETHER: Final = 192
"""Products that are added up in one go: fewer would cost time, more would round worse than the plain layer."""
_ROWS: Final = 64
"""Tokens of a forward that the layout is chosen for. It is right for any number."""


class PackedLinear(nn.Module):
    """x [..., I] -> x W^T + b [..., O], for float32 on a CPU. The weights are opaque to all but oneDNN."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        parts = -(-linear.in_features // INPUTS_TOGETHER)
        # Not buffers: nothing can save, move or cast what only oneDNN can read.
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
    """Replaces every float32 linear layer on a CPU below ``module``, for inference; returns how many.

    The plain weights are let go. Other devices and dtypes, and builds without oneDNN, are left alone.
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
    """Not subclasses, which may compute something else, nor a weight that is one: it tells the dtype it stands for."""
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)  # noqa: SLF001
    return packed


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return out
