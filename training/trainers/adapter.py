"""Low-rank adapters (LoRA) of a backbone, through peft."""

import torch
from peft import LoraConfig, inject_adapter_in_model

from model_store.network.model import RewardModel

DEFAULT_ALPHA_FACTOR = 2


def add_adapter(model: RewardModel, rank: int, seed: int) -> LoraConfig:
    """Freezes the backbone and adds float32 adapters of ``rank`` to all its linear layers, in place.

    The adapters start as nothing: the model's scores are unchanged. Returns their configuration.
    """
    config = LoraConfig(r=rank, lora_alpha=DEFAULT_ALPHA_FACTOR * rank, target_modules="all-linear")
    model.backbone.requires_grad_(requires_grad=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.backbone)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return config
