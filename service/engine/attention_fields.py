"""Fields of a configuration that change attention or positions, and the lengths from which they do.

A probe of random tokens shows what a field does at its own length only. So each field that could change attention at a
greater length must be known here: a mask that is checked at the full context, a length that the probe has to exceed,
or a field whose effect shows at any length.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from transformers import PreTrainedConfig

_ABOUT_ATTENTION: Final = re.compile(
    "attn|attention|window|chunk|position|rope|rotary|alibi|bias|sink|sparse_|index_|local|global|compress|block"
    "|causal|bidirectional|context|layer_types|kv_shared|mem_"
)
_MASKS: Final = frozenset(
    """
    sliding_window use_sliding_window sliding_window_pattern _sliding_window_pattern sliding_window_size
    max_window_layers attention_chunk_size layer_types local_attention global_attn_every_n_layers
    """.split()  # noqa: SIM905  (a list of strings takes ten times the lines)
)
"""Fields that transformers turns into masks, which ``service.engine.attention_calls`` reads at the full context."""
_POSITIONS: Final = frozenset(
    """
    max_position_embeddings original_max_position_embeddings n_positions position_embedding_type
    attn_temperature_tuning no_rope_layers no_rope_layer_interval use_rope use_mrope rope_parameters
    rope_scaling rope_theta rope_type rope_pct rope_local_base_freq rope_interleave rope_interleaved
    default_rope_theta layer_rope_theta rotary_dim rotary_pct rotary_emb_base partial_rotary_factor
    qk_rope_head_dim qk_nope_head_dim global_partial_rotary_factor
    """.split()  # noqa: SIM905  (a list of strings takes ten times the lines)
)
"""Fields that the angles of rotary embeddings come from, and those that the functions below read."""
_SHOWN_AT_ANY_LENGTH: Final = frozenset(
    """
    num_attention_heads attention_head_dim attention_hidden_size global_head_dim num_global_key_value_heads
    attention_multiplier attention_in_multiplier attention_out_multiplier attention_value_scale attention_k_eq_v
    query_pre_attn_scalar attn_logit_softcapping attn_scale scale_attn_weights scale_attn_by_inverse_layer_idx
    scale_attention_softmax_in_fp32 attention_softmax_in_fp32 reorder_and_upcast_attn parallel_attn
    attn_output_gate use_attention_gate attn_layer_offset attn_layer_period attn_layer_indices full_attn_idxs
    layers_block_type full_attn_alpha_factor full_attn_beta_factor linear_attn_alpha_factor
    linear_attn_beta_factor num_kv_shared_layers add_cross_attention num_mem_blocks block_auto_adjust_ff_dim
    block_ffn_dim_multiplier block_multiple_of chunk_size mamba_chunk_size chunk_size_feed_forward
    num_local_experts decoder_sparse_step mlp_layer_types mtp_layer_types mtp_layers_block_type bias use_bias
    no_bias enable_bias attention_bias attention_out_bias use_attention_bias qkv_bias use_qkv_bias qv_bias
    query_bias key_bias value_bias proj_bias mlp_bias norm_bias conv_bias use_conv_bias mamba_conv_bias
    mamba_proj_bias add_bias_linear decoder_bias classifier_bias lm_head_bias router_bias use_expert_bias
    """.split()  # noqa: SIM905  (a list of strings takes ten times the lines)
)
_LAYERS: Final = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
_ROPE_FIELDS: Final = {
    "rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor", "truncate",
    "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "low_freq_factor", "high_freq_factor", "short_factor",
    "long_factor", "short_mscale", "long_mscale", "partial_rotary_factor", "mrope_section", "mrope_interleaved",
    "llama_4_scaling_beta", "max_position_embeddings", "alpha",
}  # fmt: skip
_ROPE_TYPES: Final = {"default", "linear", "llama3", "yarn", "dynamic", "longrope", "proportional", "mrope"}


def unknown_field(config: PreTrainedConfig) -> str | None:
    """Returns a field about attention whose meaning is not known here, with its value; None if there is none.

    Fields that are null, false, zero or empty switch nothing on.
    """
    fields = config.get_text_config().to_dict()
    for name, value in fields.items():
        if value and _ABOUT_ATTENTION.search(name) and not _is_known(name):
            return f"{name}: {value}"
    if other := set(fields.get("layer_types") or ()) - _LAYERS:
        return f"layer_types: {', '.join(sorted(other))}"
    for rope in _ropes(config):
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind not in _ROPE_TYPES:
            return f"rope_type: {kind}"
        for name in rope.keys() - _ROPE_FIELDS:
            if rope[name]:
                return f"rope_parameters.{name}: {rope[name]}"
    return None


def changing_positions(config: PreTrainedConfig) -> list[int]:
    """Returns the positions from which queries are scaled in another way, ascending: a probe must reach beyond them."""
    text: Any = config.get_text_config()
    starts = [rope["original_max_position_embeddings"] for rope in _ropes(config) if rope.get("llama_4_scaling_beta")]
    if getattr(text, "attn_temperature_tuning", None):
        starts.append(text.floor_scale - 1)
    return sorted({int(start) for start in starts})


def rescaling_length(config: PreTrainedConfig) -> int | None:
    """Returns the tokens of the longest forward that does not change every position's embedding; None: any does not.

    LongRoPE and dynamic rotary embeddings are computed anew from the longest position of a forward.
    """
    text: Any = config.get_text_config()
    lengths = []
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", rope.get("type")))
        if kind == "longrope":
            lengths.append(rope.get("original_max_position_embeddings", 0))
        elif "dynamic" in kind:
            lengths.append(text.max_position_embeddings)
    return min(map(int, lengths), default=None)


def _is_known(name: str) -> bool:
    """Returns whether a field's effect is covered. Dropout is off when scores are computed."""
    return "dropout" in name or "pdrop" in name or name in _MASKS | _POSITIONS | _SHOWN_AT_ANY_LENGTH


def _ropes(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """Yields the parameters of each rotary embedding: of all layers, or of one type of layers."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    by_type = [value for value in parameters.values() if isinstance(value, Mapping)]
    yield from by_type or [parameters]
