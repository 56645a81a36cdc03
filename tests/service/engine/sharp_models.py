"""Tiny random models whose scores depend on every earlier token.

With the usual initialisation attention is nearly even, and a token wrongly read or left out hardly shows. Here another
first token changes the scores 30 tokens later by at least a tenth of their deviation.
"""

from typing import Any

import torch
from transformers import PreTrainedConfig

from model_store.network.model import RewardModel, new_model
from service.engine.node_bytes import TOKEN_ID_BYTES

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KV_BYTES = 2 * 2 * 2 * 8 * 4
"""Bytes of one token's keys and values: 2 layers and 2 heads of 8 floats."""
CACHED_BYTES = KV_BYTES + 4 + TOKEN_ID_BYTES
"""Bytes of one token in the prefix cache: keys and values, the raw score and the token id."""


def sharp_model(config: type[PreTrainedConfig], **shape: Any) -> RewardModel:
    return sharpened(config(**{**SHAPE, **shape}))


def sharpened(config: PreTrainedConfig) -> RewardModel:
    model = new_model(config, seed=0).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    next(model.head.parameters()).normal_(generator=generator)
    return model


def naive_scores(model: RewardModel, token_ids: tuple[int, ...]) -> list[float]:
    """Returns the raw score at every token of one sequence, computed alone in a forward."""
    with torch.inference_mode():
        scores: list[float] = model(torch.tensor([token_ids]))[0].tolist()
    return scores
