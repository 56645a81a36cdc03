"""The update both training loops take: AdamW, linear warm-up, cosine decay to zero, gradient norm clipped at 1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 0.05  # share of the updates
CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    peak: float
    updates: int

    def rate(self, update: int) -> float:
        """The learning rate of update 0, 1, ... ``updates`` - 1."""
        rising = (update + 1) / max(1.0, WARM_UP * self.updates)
        falling = 0.5 * (1 + math.cos(math.pi * update / self.updates))
        return self.peak * min(rising, falling)


def optimizer_of(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves norms and biases alone."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.dim() >= 2], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))


def take_update(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], CLIP_NORM)
    optimizer.step()
