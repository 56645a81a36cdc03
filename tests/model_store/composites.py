"""Tiny composite checkpoints: a language model beside a vision tower, as transformers saves them.

Each has what sets its kind apart: windows, linear attention, experts, positions of images.
"""

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from tests.model_store.tiny_checkpoints import save

_ROPE: Final = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
_MIXED: Final = ["linear_attention", "full_attention"]
_WINDOWS: Final = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_LINEAR: Final = {
    "layer_types": _MIXED,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "rope_parameters": _ROPE,
}
_EXPERTS: Final = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_BLOCKS: Final = {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
_LAYERS: Final = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_CLIP: Final = {"model_type": "clip_vision_model", "projection_dim": 16, **_LAYERS}

KINDS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "qwen3_vl": ({"rope_parameters": _ROPE}, {**_BLOCKS, "deepstack_visual_indexes": [0]}),
    "qwen3_5": (_LINEAR, _BLOCKS),
    "gemma3": ({**_WINDOWS, "query_pre_attn_scalar": 8}, _LAYERS),
    "mistral3": ({"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 8, **_LAYERS}),
    "qwen2_5_vl": ({"rope_parameters": _ROPE}, _BLOCKS),
    "qwen2_vl": ({"rope_parameters": _ROPE}, {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2}),
    "qwen3_vl_moe": ({"rope_parameters": _ROPE, **_EXPERTS}, {**_BLOCKS, "deepstack_visual_indexes": [0]}),
    "qwen3_5_moe": ({**_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 16}, _BLOCKS),
    "gemma4": (
        {**_WINDOWS, "hidden_size_per_layer_input": 8, "global_head_dim": 8, "pad_token_id": 0},
        {name: size for name, size in _LAYERS.items() if name not in ("image_size", "patch_size")},
    ),
    "llama4": (
        {"intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 256},
        {**_LAYERS, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
    ),
    "glm4v": ({"rope_parameters": _ROPE}, _BLOCKS),
    "internvl": ({"model_type": "qwen2"}, {**_LAYERS, "image_size": [28, 28], "patch_size": [14, 14]}),
    "idefics3": ({"model_type": "llama"}, _LAYERS),
    "smolvlm": ({"model_type": "llama"}, _LAYERS),
    "llava": ({"model_type": "llama"}, _CLIP),
    "llava_next": ({"model_type": "mistral"}, _CLIP),
    "llava_onevision": ({"model_type": "qwen2"}, {"model_type": "siglip_vision_model", **_LAYERS}),
}
"""What sets the text configuration of a kind apart, and its vision configuration."""


def composite_config(kind: str, tokenizer: Tokenizer, **more: Any) -> Any:
    text, vision = KINDS[kind]
    shape = {
        "vocab_size": tokenizer.get_vocab_size() + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind == "gemma4":
        more["text_config"] = {"vocab_size_per_layer_input": shape["vocab_size"]}
    text_config = {**shape, **text, **more.pop("text_config", {})}
    make: Any = CONFIG_MAPPING[kind]
    return make(text_config=text_config, vision_config=vision, dtype="float32", **more)


def make_composite(path: Path, kind: str, tokenizer: Tokenizer, *, bos: str) -> None:
    """Writes a whole model that answers with text."""
    model = AutoModelForImageTextToText.from_config(composite_config(kind, tokenizer))
    save(path, model, tokenizer, bos=bos)


@torch.inference_mode()
def whole_logits(path: Path, ids: list[int]) -> torch.Tensor:
    """[T, V], by the whole model, as transformers loads it."""
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    out: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return out
