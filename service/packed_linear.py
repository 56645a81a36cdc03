"""Linear layers as oneDNN multiplies them fastest on a CPU: weights in its blocked layout, laid out once at load.

torch hands float32 products to a library that uses the widest vectors of some makers' processors only; oneDNN asks
the processor. Scores move by rounding alone.
"""

from typing import Final

import torch
from torch import Tensor, nn

_ROWS: Final = 64
"""Tokens of a forward that the layout is chosen for. It is right for any number."""


class PackedLinear(nn.Module):
    """x [..., I] -> x W^T + b [..., O]. ``weight`` tells its shape and dtype to all, its numbers only to oneDNN."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)  # noqa: SLF001
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # noqa: SLF001
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
            # Not subclasses: they may compute something else.
            if type(child) is nn.Linear and child.weight.device.type == "cpu" and child.weight.dtype == torch.float32:
                setattr(parent, name, PackedLinear(child))
                packed += 1
    return packed
