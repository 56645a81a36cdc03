"""What configurations say about lengths at which attention or positions change."""

from typing import Any

import pytest
from transformers import (
    Gemma3Config,
    Llama4TextConfig,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)

from service.engine.attention_fields import changing_positions, rescaling_length, unknown_field

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_theta": 1e4}


@pytest.mark.parametrize(
    "field",
    [
        {"window_of_layers": [4, 8]},
        {"attention_stride": 2},
        {"key_chunk": 16},
        {"relative_position_bias": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "grows_from": 16}},
        {"index_topk": 2048},
        {"layer_types": ["full_attention", "linear_attention"], "num_hidden_layers": 2},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_field_about_attention_that_nobody_knows_is_named(field: dict[str, Any]) -> None:
    named = unknown_field(LlamaConfig(**field))
    assert named is not None
    assert next(iter(field)) in named


@pytest.mark.parametrize("value", [None, False, 0, [], ""])
def test_a_field_that_is_off_is_not_named(value: object) -> None:
    field: dict[str, Any] = {"attention_stride": value}
    assert unknown_field(LlamaConfig(**field)) is None


@pytest.mark.parametrize("config", [LlamaConfig, Qwen2Config, MistralConfig, Llama4TextConfig, Ministral3Config])
def test_the_usual_fields_are_known(config: type[PreTrainedConfig]) -> None:
    assert unknown_field(config()) is None
    more: dict[str, Any] = {
        "attention_dropout": 0.1,
        "attn_pdrop": 0.1,
        "attention_softmax_in_fp32": True,
        "rope_theta": 5e5,
        "rope_interleaved": False,
        "use_mrope": False,
        "max_window_layers": 21,
        "mlp_bias": True,
        "num_local_experts": 8,
        "position_embedding_type": "absolute",
        "bos_token_id": 3,
    }
    assert unknown_field(config(**more)) is None


def test_the_text_tower_of_a_composite_configuration_is_read() -> None:
    assert unknown_field(Gemma3Config()) is None
    assert unknown_field(Gemma3Config(text_config={"attention_stride": 2})) == "attention_stride: 2"


def test_positions_at_which_queries_are_scaled_anew_are_found() -> None:
    assert changing_positions(LlamaConfig()) == []
    assert changing_positions(Llama4TextConfig(floor_scale=8192)) == [8191]
    assert changing_positions(Llama4TextConfig(attn_temperature_tuning=False)) == []
    assert changing_positions(Ministral3Config()) == [16384]


def test_the_length_from_which_a_forward_changes_all_positions_is_found() -> None:
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    shape: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 128}
    assert rescaling_length(LlamaConfig(**shape)) is None
    assert rescaling_length(LlamaConfig(**shape, rope_parameters=dynamic)) == 128
    phi = Phi3Config(**shape, pad_token_id=0, original_max_position_embeddings=32, rope_parameters=LONGROPE)
    assert rescaling_length(phi) == 32
