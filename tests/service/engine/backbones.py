"""Small configurations of many families, whose windows, chunks and rope thresholds are shorter than the context."""

from typing import Any, Final

import transformers
from transformers import PreTrainedConfig

from model_store.network.model import RewardModel
from tests.service.engine.sharp_models import SHAPE, sharpened

CONTEXT_LENGTH: Final = 96
_THRESHOLD: Final = 24
_BEYOND_PROBE: Final = 72
"""More than the tokens that a probe has by default."""
_MOE: Final = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LLAMA4: Final = {
    **_MOE,
    "intermediate_size_mlp": 32,
    "no_rope_layers": [1, 0],
    "attn_temperature_tuning": False,
    "attn_scale": 0.5,
}
_WINDOW: Final = {"use_sliding_window": True, "sliding_window": _THRESHOLD, "max_window_layers": 1}
_MAMBA: Final = {
    "mamba_d_state": 4,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
_SHORT_NAMES: Final = {"n_positions": CONTEXT_LENGTH, "n_embd": 16, "n_layer": 2, "n_head": 4}
_LATENT: Final = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
_ALTERNATE: Final = ["sliding_attention", "full_attention"]


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    whole = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": _THRESHOLD}
    return {"rope_parameters": whole | parameters}


_LONGROPE: Final = _rope("longrope", short_factor=[1.0] * 4, long_factor=[1.0, 2.0, 4.0, 8.0])
_LLAMA3: Final = _rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0)

BACKBONES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Llama": ("LlamaConfig", {}),
    "Llama, llama3 rope": ("LlamaConfig", _LLAMA3),
    "Llama, yarn rope": ("LlamaConfig", _rope("yarn")),
    "Llama, linear rope": ("LlamaConfig", _rope("linear")),
    "Llama, dynamic rope": ("LlamaConfig", _rope("dynamic")),
    "Llama, longrope": ("LlamaConfig", _LONGROPE),
    "Llama 4": ("Llama4TextConfig", {**_LLAMA4, "attention_chunk_size": _THRESHOLD}),
    "Llama 4, a chunk beyond the probe": ("Llama4TextConfig", {**_LLAMA4, "attention_chunk_size": _BEYOND_PROBE}),
    "Llama 4, scaling beyond the probe": (
        "Llama4TextConfig",
        {**_LLAMA4, "attention_chunk_size": CONTEXT_LENGTH, "attn_temperature_tuning": True, "floor_scale": 80},
    ),
    "Qwen2": ("Qwen2Config", {}),
    "Qwen2, window": ("Qwen2Config", _WINDOW),
    "Qwen2-MoE": ("Qwen2MoeConfig", {**_MOE, "shared_expert_intermediate_size": 16}),
    "Qwen3": ("Qwen3Config", {}),
    "Qwen3-MoE": ("Qwen3MoeConfig", _MOE),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        {
            **_MOE,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "Qwen3.5": (
        "Qwen3_5TextConfig",
        {
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "Mistral": ("MistralConfig", {"sliding_window": None}),
    "Mistral, window": ("MistralConfig", {"sliding_window": _THRESHOLD}),
    "Ministral 3": (
        "Ministral3Config",
        _rope("yarn", beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3),
    ),
    "Ministral 3, scaling beyond the probe": (
        "Ministral3Config",
        _rope("yarn", llama_4_scaling_beta=0.3, original_max_position_embeddings=_BEYOND_PROBE, factor=4 / 3),
    ),
    "Mistral, a window beyond the probe": ("MistralConfig", {"sliding_window": _BEYOND_PROBE}),
    "Mixtral": ("MixtralConfig", _MOE),
    "Gemma": ("GemmaConfig", {}),
    "Gemma 2": ("Gemma2Config", {"sliding_window": _THRESHOLD}),
    "Gemma 3": ("Gemma3TextConfig", {"sliding_window": _THRESHOLD, "layer_types": _ALTERNATE}),
    "Phi": ("PhiConfig", {}),
    "Phi-3": ("Phi3Config", {"sliding_window": None}),
    "Phi-3, longrope": (
        "Phi3Config",
        {
            **_rope("longrope", short_factor=[1.0] * 2, long_factor=[1.0, 8.0]),
            "original_max_position_embeddings": _THRESHOLD,
            "head_dim": 4,
            "num_key_value_heads": 4,
        },
    ),
    "gpt-oss": ("GptOssConfig", {**_MOE, "sliding_window": _THRESHOLD}),
    "OLMo": ("OlmoConfig", {}),
    "OLMo 2": ("Olmo2Config", {}),
    "OLMo 3": ("Olmo3Config", {"sliding_window": _THRESHOLD, "layer_types": _ALTERNATE}),
    "OLMoE": ("OlmoeConfig", {**_MOE, "head_dim": 4}),
    "Cohere": ("CohereConfig", {}),
    "Cohere 2": ("Cohere2Config", {"sliding_window": _THRESHOLD, "layer_types": _ALTERNATE}),
    "StarCoder2": ("Starcoder2Config", {"sliding_window": None}),
    "StarCoder2, window": ("Starcoder2Config", {"sliding_window": _THRESHOLD}),
    "GPT-NeoX": ("GPTNeoXConfig", {}),
    "GPT-Neo": (
        "GPTNeoConfig",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": _THRESHOLD},
    ),
    "GPT-J": ("GPTJConfig", {**_SHORT_NAMES, "rotary_dim": 4}),
    "GPT-2": ("GPT2Config", _SHORT_NAMES),
    "BLOOM": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "MPT": ("MptConfig", {"d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT_LENGTH}),
    "OPT": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 16}),
    "Falcon": ("FalconConfig", {"head_dim": ...}),
    "Falcon, alibi": ("FalconConfig", {"alibi": True, "head_dim": ...}),
    "StableLM": ("StableLmConfig", {}),
    "GLM-4": ("Glm4Config", {}),
    "GLM-4-MoE": ("Glm4MoeConfig", {**_MOE, "n_routed_experts": 4, "first_k_dense_replace": 1}),
    "SmolLM3": ("SmolLM3Config", {"no_rope_layers": [1, 0]}),
    "DeepSeek-V2": (
        "DeepseekV2Config",
        {**_MOE, **_LATENT, "n_routed_experts": 4, "head_dim": 4, "num_key_value_heads": 4},
    ),
    "DeepSeek-V3": (
        "DeepseekV3Config",
        {
            **_MOE,
            **_LATENT,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "head_dim": 4,
            "num_key_value_heads": 4,
        },
    ),
    "DeepSeek-V3.2": (
        "DeepseekV32Config",
        {
            **_MOE,
            **_LATENT,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "head_dim": 4,
            "num_key_value_heads": 4,
            "index_topk": _THRESHOLD,
            "index_n_heads": 16,
            "index_head_dim": 12,
        },
    ),
    "Jamba": ("JambaConfig", {**_MOE, **_MAMBA, "attn_layer_period": 2, "attn_layer_offset": 1}),
    "Bamba": ("BambaConfig", {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "attn_layer_indices": [1]}),
    "Mamba": ("MambaConfig", {"state_size": 4, "time_step_rank": 4}),
    "Mamba 2": ("Mamba2Config", {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1, "expand": 2}),
    "FalconMamba": ("FalconMambaConfig", {"state_size": 4, "time_step_rank": 4}),
    "Falcon-H1": ("FalconH1Config", {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_d_ssm": 32}),
    "RecurrentGemma": ("RecurrentGemmaConfig", {"attention_window_size": _THRESHOLD}),
    "LFM2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "Granite": ("GraniteConfig", {"attention_multiplier": 0.3}),
    "Granite-MoE": ("GraniteMoeConfig", _MOE),
    "Nemotron": ("NemotronConfig", {}),
    "Zamba2": (
        "Zamba2Config",
        {
            "mamba_d_state": 4,
            "n_mamba_heads": 4,
            "mamba_ngroups": 1,
            "mamba_headdim": 8,
            "hybrid_layer_ids": [1],
            "layers_block_type": ["mamba", "hybrid"],
            "num_mem_blocks": 1,
            "attention_head_dim": 8,
            "attention_hidden_size": 32,
        },
    ),
    "ModernBERT decoder": ("ModernBertDecoderConfig", {"local_attention": _THRESHOLD, "head_dim": ...}),
    "EXAONE 4": ("Exaone4Config", {"sliding_window": _THRESHOLD, "layer_types": _ALTERNATE}),
    "MiniMax": ("MiniMaxConfig", {**_MOE, "layer_types": ["linear_attention", "full_attention"], "block_size": 8}),
    "Seed-OSS": ("SeedOssConfig", {}),
    "Apertus": ("ApertusConfig", {}),
    "Helium": ("HeliumConfig", {"head_dim": 4}),
    "BitNet": ("BitNetConfig", {"head_dim": 4}),
    "HunYuan": ("HunYuanDenseV1Config", {}),
    "ERNIE 4.5": ("Ernie4_5Config", {}),
    "PhiMoE": ("PhimoeConfig", _MOE),
    "DiffLlama": ("DiffLlamaConfig", {}),
    "NanoChat": ("NanoChatConfig", {}),
    "VaultGemma": ("VaultGemmaConfig", {"sliding_window": _THRESHOLD}),
    "Gemma 3n": (
        "Gemma3nTextConfig",
        {
            "num_kv_shared_layers": 0,
            "layer_types": _ALTERNATE,
            "sliding_window": _THRESHOLD,
            "activation_sparsity_pattern": [0.0, 0.0],
            "vocab_size_per_layer_input": 50,
            "hidden_size_per_layer_input": 4,
            "laurel_rank": 4,
        },
    ),
}

SHARING: Final = {
    "Llama",
    "Llama, llama3 rope",
    "Llama, yarn rope",
    "Llama, linear rope",
    "Llama, dynamic rope",
    "Qwen2",
    "Qwen2-MoE",
    "Qwen3",
    "Qwen3-MoE",
    "Mistral",
    "Ministral 3",
    "Ministral 3, scaling beyond the probe",
    "Mixtral",
    "Gemma",
    "Phi",
    "Phi-3",
    "OLMo",
    "OLMo 2",
    "OLMoE",
    "Cohere",
    "StarCoder2",
    "GPT-NeoX",
    "GPT-2",
    "OPT",
    "GLM-4",
    "GLM-4-MoE",
    "SmolLM3",
    "Granite",
    "Granite-MoE",
    "Seed-OSS",
    "Apertus",
    "Helium",
    "BitNet",
    "HunYuan",
    "ERNIE 4.5",
    "PhiMoE",
    "NanoChat",
}
"""Those whose prefixes are shared; the others are computed in whole rows."""


def backbone(name: str) -> RewardModel:
    """Returns a random model of the family, of ``CONTEXT_LENGTH`` positions, whose every weight matters."""
    family, own = BACKBONES[name]
    shape = {**SHAPE, "max_position_embeddings": CONTEXT_LENGTH, **own}
    config: type[PreTrainedConfig] = getattr(transformers, family)
    return sharpened(config(**{field: value for field, value in shape.items() if value is not ...}))
