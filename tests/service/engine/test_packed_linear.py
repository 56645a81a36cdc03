"""Packed linear layers against the plain layers that they replace."""

import weakref
from copy import deepcopy

import pytest
import torch
from torch import nn

from service.engine.packed_linear import PackedLinear, pack_linears


class Quantised(nn.Linear):
    """A subclass of Linear, which may compute something else."""


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
    assert torch.allclose(packed(x.transpose(0, 1)), plain(x.transpose(0, 1)), atol=1e-6), "an input with other strides"


def test_packing_frees_the_plain_weights() -> None:
    packed = network()
    plain = weakref.ref(packed[0].weight)
    pack_linears(packed)
    assert isinstance(packed[0], PackedLinear)
    assert plain() is None


@pytest.mark.parametrize("inputs", [1, 255, 256, 257, 700, 2048])
@torch.inference_mode()
def test_a_packed_layer_is_as_accurate_as_a_plain_one(inputs: int) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, 300)
    x = torch.randn(100, inputs)
    truth = nn.functional.linear(x.double(), plain.weight.double(), plain.bias.double())
    plain_error, error = ((layer(x) - truth).square().mean().sqrt() for layer in (plain, PackedLinear(plain)))
    assert error < 1.5 * plain_error, "2.2 times as large at 2,048 inputs if the layer is not cut"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_subclasses_are_left_alone(dtype: torch.dtype) -> None:
    model = network(dtype)
    assert pack_linears(model) == 0
    assert type(model[0]) is nn.Linear
    single = network()
    pack_linears(single)
    assert type(single[2]) is Quantised
