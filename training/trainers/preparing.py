"""A base model made ready for a recipe: what is trained, in which dtype, and on which device."""

from typing import Any

import torch
from torch import nn

from agentprm.errors import InvalidRequest
from model_store.network.model import RewardModel
from training.trainers.adapter import add_adapter
from training.trainers.optimizer import new_optimizer
from training.trainers.recipe import HEAD_RATE, WEIGHT_DECAY, Recipe


def prepare(model: RewardModel, recipe: Recipe, device: torch.device) -> None:
    """Changes the model in place. Raises InvalidRequest if its family cannot recompute activations, as asked.

    Dropout is switched off, as scores are computed without it and targets come from the same forward.
    """
    for module in model.modules():
        _switch_off_dropout(module)
    backbone: Any = model.backbone
    backbone.to(torch.float32 if recipe.lora is None else getattr(torch, recipe.dtype))
    model.requires_grad_(requires_grad=True)
    if recipe.lora is not None:
        add_adapter(model, recipe.lora, recipe.seed)
    if recipe.gradient_checkpointing:
        _recompute_activations(backbone)
    model.to(device).train()


def optimizer_of(model: RewardModel, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns an AdamW over what is trained; the head, which is new, learns at ``HEAD_RATE`` at least."""
    optimizer = new_optimizer(model.backbone, recipe.peak_rate, WEIGHT_DECAY)
    scale = max(1.0, HEAD_RATE / recipe.peak_rate)
    optimizer.add_param_group({"params": list(model.head.parameters()), "weight_decay": 0.0, "scale": scale})
    return optimizer


def _switch_off_dropout(module: nn.Module) -> None:
    if isinstance(module, nn.Dropout):
        module.p = 0.0
    if isinstance(getattr(module, "attention_dropout", None), float):
        module.attention_dropout = 0.0  # type: ignore[assignment]  # what attention functions are given


def _recompute_activations(backbone: Any) -> None:
    if not backbone.supports_gradient_checkpointing:
        raise InvalidRequest(f"a {backbone.config.model_type} cannot train with --gradient-checkpointing")
    older_name = "gradient_checkpointing_enable"  # of transformers before its version 5 gave it another
    enable = getattr(backbone, "activation_checkpointing_enable", None) or getattr(backbone, older_name)
    enable({"use_reentrant": False})
