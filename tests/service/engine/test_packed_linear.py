"""Packed linear layers against the plain layers that they replace."""

import weakref
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from service.engine import packed_linear
from service.engine.packed_linear import PackedLinear, pack_linears, pack_where_equal
from tests.service.engine.backbones import backbone


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


@pytest.mark.parametrize("inputs", [48, 700])
def test_a_packed_layer_gives_its_exact_weights_back(inputs: int) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, 80)
    packed = PackedLinear(plain)
    assert torch.equal(packed.weight, plain.weight)
    unpacked = packed.unpack()
    assert torch.equal(unpacked.weight, plain.weight)
    assert unpacked.bias is plain.bias
    assert (unpacked.in_features, unpacked.out_features) == (packed.in_features, packed.out_features) == (inputs, 80)


@pytest.mark.parametrize("name", ["Mamba", "FalconMamba", "Jamba"])
def test_layers_whose_weights_a_model_reads_stay_plain_and_the_others_are_packed(name: str) -> None:
    network = backbone(name).backbone
    pack_where_equal(network)
    layers = dict(network.named_modules())
    plain = {path.rsplit(".")[-1] for path, layer in layers.items() if type(layer) is nn.Linear}
    assert plain == {"dt_proj"}
    assert any(isinstance(layer, PackedLinear) for layer in layers.values())


multiply = packed_linear._multiply


def doubled(*operands: Any) -> torch.Tensor:
    return 2 * multiply(*operands)


def fails(*_: object) -> None:
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(doubled, "its hidden states change by"), (fails, "no such kernel")],
    ids=["wrong", "failing"],
)
def test_a_model_that_packing_would_change_keeps_its_plain_layers(
    broken: object, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = backbone("Qwen2").backbone
    before = network.state_dict()
    monkeypatch.setattr(packed_linear, "_multiply", broken)
    pack_where_equal(network)
    assert not any(isinstance(layer, PackedLinear) for layer in network.modules())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert f"linear layers of Qwen2Model stay plain: {reason}" in caplog.text
