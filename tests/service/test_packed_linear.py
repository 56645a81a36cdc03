"""Packed layers against the plain ones they replace."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from service.packed_linear import PackedLinear, pack_linears


class Quantised(nn.Linear):
    """A layer that is a Linear by name and computes something else."""


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 80), nn.Sequential(nn.ReLU(), nn.Linear(80, 7, bias=False)), Quantised(7, 5)).to(
        dtype
    )


@pytest.mark.parametrize("rows", [1, 3, 64, 200])
@torch.inference_mode()
def test_packed_layers_compute_what_the_plain_ones_do_for_any_number_of_rows(rows: int) -> None:
    plain = network()
    packed = deepcopy(plain)
    assert pack_linears(packed) == 2
    x = torch.randn(2, rows, 48)
    assert torch.allclose(packed(x), plain(x), atol=1e-6)
    assert torch.allclose(packed(x.transpose(0, 1)), plain(x.transpose(0, 1)), atol=1e-6), "strides are the caller's"


def test_packing_tells_dtype_and_shape_and_lets_the_plain_weights_go() -> None:
    packed = network()
    plain = packed[0].weight
    pack_linears(packed)
    layer = packed[0]
    assert isinstance(layer, PackedLinear)
    assert (layer.weight.dtype, layer.weight.shape) == (torch.float32, (80, 48))
    assert not any(weight is plain for weight in packed.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_subclasses_are_left_alone(dtype: torch.dtype) -> None:
    model = network(dtype)
    assert pack_linears(model) == 0
    assert type(model[0]) is nn.Linear
    single = network()
    pack_linears(single)
    assert type(single[2]) is Quantised
