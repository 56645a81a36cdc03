"""Low-rank adapters (LoRA) of a backbone, through peft."""

from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import PreTrainedModel

from model_store.network.model import RewardModel

ALPHA_PER_RANK: Final = 2


def add_adapter(model: RewardModel, rank: int, seed: int) -> None:
    """Freezes the backbone and adds float32 adapters of ``rank`` to all its linear layers, in place.

    The adapters start as nothing: the model's scores are unchanged.
    """
    config = LoraConfig(r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules="all-linear")
    model.backbone.requires_grad_(requires_grad=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model.backbone)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def has_adapter(model: RewardModel) -> bool:
    """Returns whether adapters were added and not merged."""
    return any(isinstance(module, LoraLayer) for module in model.backbone.modules())


def merge_adapter(model: RewardModel) -> None:
    """Adds the adapters' changes to the weights and removes them, in place; in bfloat16 the sums are rounded."""
    for name, module in list(model.backbone.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.backbone.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model.backbone, "peft_config"):
        del model.backbone.peft_config


def save_adapter(backbone: PreTrainedModel, path: Path) -> None:
    """Writes the adapters of a backbone as peft does for a causal language model over it."""
    path.mkdir()
    config: Any = backbone.peft_config["default"]
    config.save_pretrained(str(path))
    within = ".".join(filter(None, ("base_model.model", backbone.base_model_prefix)))
    tensors = get_peft_model_state_dict(backbone)
    save_file(
        {f"{within}.{name}": tensor.contiguous() for name, tensor in tensors.items()},
        path / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
