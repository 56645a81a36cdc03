"""Masks of a model's layers, read at a context longer than any forward."""

from typing import Any

import pytest
import torch
from transformers.masking_utils import causal_mask_function, chunked_causal_mask_function

from service.engine import probe
from service.engine.attention_calls import attention_calls, fewest_read
from service.engine.probe import Probe, probe_length, unshareable
from tests.service.engine.backbones import backbone

CPU = torch.device("cpu")


@pytest.mark.parametrize(("chunk", "fewest"), [(8192, 1), (9000, 7384), (16384, 16384), (10**6, 16384)])
def test_a_chunk_of_thousands_of_tokens_is_found(chunk: int, fewest: int) -> None:
    mask = chunked_causal_mask_function(chunk, torch.zeros(1, dtype=torch.long))
    assert fewest_read(mask, 16384, CPU) == fewest


def test_a_causal_mask_reads_all_tokens_before_and_a_bidirectional_one_is_refused() -> None:
    causal: Any = causal_mask_function  # it takes tensors too
    assert fewest_read(causal, 1000, CPU) == 1000
    assert fewest_read(lambda _, __, query, key: (query >= 0) & (key >= 0), 1000, CPU) == 0


def test_the_masks_that_layers_use_are_told_from_those_that_are_only_made() -> None:
    made = backbone("Qwen2-MoE")
    assert [call.mask and fewest_read(call.mask, 64, CPU) for call in attention_calls(made)] == [64, 64]
    gemma = backbone("Gemma 3")
    attention = gemma.backbone.config._attn_implementation
    calls = attention_calls(gemma)
    assert [(call.layer, call.mask and fewest_read(call.mask, 64, CPU)) for call in calls] == [(0, 24), (1, 64)]
    assert gemma.backbone.config._attn_implementation == attention


def test_a_window_that_no_sequence_of_the_context_fills_does_not_count() -> None:
    window = backbone("Mistral, a window beyond the probe")
    assert unshareable(window, 72) is None
    assert unshareable(window, 73) == "its attention lets a token read as few as 72 tokens, and the context has 73"


def test_a_probe_exceeds_every_position_at_which_queries_are_scaled_anew() -> None:
    model = backbone("Ministral 3, scaling beyond the probe")
    assert probe_length(backbone("Qwen2"), 96) == 64
    assert probe_length(model, 72) == 64
    assert probe_length(model, 96) == 96
    assert max(len(ids) for call in Probe.of(model, 96).calls for ids in call) == 96


def test_a_position_too_far_for_a_probe_refuses_to_share_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("Ministral 3, scaling beyond the probe")
    monkeypatch.setattr(probe, "LONGEST_PROBE_TOKENS", {"cpu": 80})
    assert (
        unshareable(model, 96) == "its attention changes at token 72, and a probe has at most 80 tokens on this device"
    )
    assert unshareable(model, 72) is None
    monkeypatch.setattr(probe, "LONGEST_PROBE_TOKENS", {"cpu": 81})
    assert unshareable(model, 96) is None
