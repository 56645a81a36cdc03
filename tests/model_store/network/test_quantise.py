"""Quantised weights: close to the full ones, with the stated error, and the same in every batch."""

import sys
from copy import deepcopy
from math import sqrt
from typing import Any, cast

import pytest
import torch
from transformers import Qwen2Config

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError, CheckpointTooLarge
from model_store.format.store import Store
from model_store.network.model import RewardModel
from model_store.network.quantise import Bits, ScoreError, dtype_of, quantise, quantise_layers
from service.engine import selection
from service.engine.packed_linear import pack_linears
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import Weights, choose_engine, load_engine
from service.settings import CHECKPOINTS
from tests.service.engine.sharp_models import naive_scores, sharp_model

BITS: list[Bits] = ["int8", "int4"]
CHOICES: list[Weights] = ["auto", "int8"]
NEAR = {"int8": 0.05, "int4": 0.5}
"""Of raw scores, in standard deviations, of a sharp model."""


def model(bits: Bits) -> RewardModel:
    made: Any = sharp_model(Qwen2Config, hidden_size=64, intermediate_size=128, head_dim=16)
    if bits == "int4":
        made.backbone.to(torch.bfloat16)
    return cast("RewardModel", made)


@pytest.mark.parametrize("bits", BITS)
def test_the_stated_error_is_that_of_scores_computed_one_by_one(bits: Bits) -> None:
    full = model(bits)
    quantised = deepcopy(full)
    stated = quantise(quantised, bits, lambda raw: raw / 2, device="cpu", longest=24)
    rows = torch.randint(50, (8, 24), generator=torch.Generator().manual_seed(0)).tolist()
    scores = [[raw for row in rows for raw in naive_scores(model, tuple(row))] for model in (full, quantised)]
    pairs = list(zip(*scores, strict=True))
    off = [abs(a - b) for a, b in pairs]
    rms, spread = sqrt(sum(value * value for value in off) / len(off)), torch.tensor([a for a, _ in pairs]).std().item()
    slack = 1e-5 if bits == "int8" else 0.05 * spread  # rows of one length round otherwise in bfloat16
    assert stated.promise_rms == pytest.approx(rms / 2, abs=slack)
    assert stated.promise_max == pytest.approx(max(off) / 2, abs=slack)
    assert stated.raw_rms == pytest.approx(rms / spread, abs=slack / spread)
    assert stated.raw_max == pytest.approx(max(off) / spread, abs=slack / spread)
    assert 0 < stated.raw_rms < NEAR[bits]
    assert stated.measured_on.startswith("192 tokens")


@pytest.mark.parametrize("bits", BITS)
def test_only_linear_layers_are_quantised_and_none_is_packed(bits: Bits) -> None:
    quantised = model(bits)
    assert quantise_layers(quantised, bits, device="cpu") == 14
    assert type(quantised.head.weight_H) is torch.nn.Parameter
    plain = [name for name, weight in quantised.backbone.named_parameters() if type(weight) is torch.nn.Parameter]
    assert all("embed" in name or "norm" in name or name.endswith("bias") for name in plain)
    assert pack_linears(quantised.backbone) == 0


@pytest.mark.parametrize("bits", BITS)
def test_cold_warm_alone_and_in_company_score_the_same(bits: Bits) -> None:
    quantised = model(bits)
    quantise_layers(quantised, bits, device="cpu")
    plain = deepcopy(quantised)
    engine = choose_engine(quantised, prefix_cache_bytes=2**20, context_length=64)
    assert isinstance(engine, PrefixEngine)
    row = torch.randint(50, (40,), generator=torch.Generator().manual_seed(3)).tolist()
    rows = [row, row[:30] + row[:8], row[:20], row[20:]]
    reads = [range(len(row)) for row in rows]
    expected = [naive_scores(plain, tuple(row)) for row in rows]
    cold = [scores.raw for scores in engine.score(rows, reads)]
    warm = [scores.raw for scores in engine.score(rows, reads)]
    engine.prefix_cache.clear()
    alone = [engine.score([row], [read])[0].raw for row, read in zip(rows, reads, strict=True)]
    tolerance = 1e-4 if bits == "int8" else 0.2
    assert warm == cold
    for found in (cold, alone):
        for scores, wanted in zip(found, expected, strict=True):
            assert scores == pytest.approx(wanted, abs=tolerance)


def test_what_the_engine_gives_is_not_what_the_full_weights_give() -> None:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    errors, found = list[ScoreError](), list[float]()
    for weights in CHOICES:
        engine = load_engine(
            checkpoint,
            "cpu",
            "auto",
            prefix_cache_bytes=0,
            cpu_threads=1,
            weights=weights,
            on_quantised=errors.append,
        )
        found += [engine.score([[1, 2, 3, 4]], [[3]])[0].raw[0]]
    assert len(errors) == 1, "of the quantised ones only"
    assert 0 < abs(found[0] - found[1]) < 0.1


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(AgentPRMError, match=r"^int8 weights need torchao, .* pip install 'agentprm\[quant\]'"):
        quantise_layers(model("int8"), "int8", device="cpu")


def test_four_bits_go_with_bfloat16_only() -> None:
    assert [dtype_of(dtype, "int4") for dtype in ("auto", "bfloat16")] == ["bfloat16"] * 2
    assert [dtype_of("float16", bits) for bits in CHOICES] == ["float16"] * 2
    with pytest.raises(AgentPRMError, match=r"^int4 weights go with bfloat16, not float32; int8 ones go with any"):
        dtype_of("float32", "int4")


def test_a_model_that_four_bits_do_not_suit_is_refused() -> None:
    narrow: Any = sharp_model(Qwen2Config, head_dim=4, intermediate_size=48)
    narrow.backbone.to(torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"^Qwen2Model has no linear layer that int4 weights suit$"):
        quantise_layers(narrow, "int4", device="cpu")


def test_room_is_asked_for_full_weights_on_the_host_and_quantised_ones_on_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    full = 4 * 379_968
    free = {"cpu": full, "cuda": full // 2}
    monkeypatch.setattr(selection, "free_bytes", free.__getitem__)
    selection.check_fits(checkpoint, "cuda", "float32", "int8")
    with pytest.raises(CheckpointTooLarge, match="on cuda"):
        selection.check_fits(checkpoint, "cuda", "float32")
    free["cuda"] = full // 8
    with pytest.raises(CheckpointTooLarge, match="on cuda"):
        selection.check_fits(checkpoint, "cuda", "float32", "int8")
    free["cpu"] -= 1
    with pytest.raises(CheckpointTooLarge, match="on cpu"):
        selection.check_fits(checkpoint, "cuda", "float32", "int8")


def test_an_engine_of_whole_rows_takes_quantised_weights_too() -> None:
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    quantised = sharp_model(Qwen2Config, hidden_size=64, **window)
    quantise_layers(quantised, "int8", device="cpu")
    plain = deepcopy(quantised)
    engine = choose_engine(quantised, prefix_cache_bytes=2**20, context_length=64)
    assert isinstance(engine, PaddedEngine)
    assert engine.score([[5, 6, 7]], [[0, 1, 2]])[0].raw == pytest.approx(naive_scores(plain, (5, 6, 7)), abs=1e-4)
