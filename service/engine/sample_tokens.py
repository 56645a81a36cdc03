"""A few token ids that every model can compute, however few tokens and positions it has."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def sample_tokens(backbone: PreTrainedModel, count: int) -> Tensor:
    """Returns token ids [1, T] on the model's device: ``count`` of them, fewer if the model has fewer positions."""
    embeddings: Any = backbone.get_input_embeddings()
    positions = getattr(backbone.config.get_text_config(), "max_position_embeddings", count)
    vocabulary = int(embeddings.weight.shape[0])
    return torch.arange(min(count, int(positions)), device=backbone.device)[None] % vocabulary
