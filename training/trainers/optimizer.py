"""The update of both training loops: AdamW, linear warm-up, cosine decay to zero, gradient norm clipped at 1."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 0.05  # share of the updates
CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by update: rises linearly to ``peak``, then falls along a cosine to zero."""

    peak: float
    updates: int

    def rate(self, update: int) -> float:
        """Returns the learning rate of update 0, 1, ... ``updates`` - 1."""
        rising = (update + 1) / max(1.0, WARM_UP * self.updates)
        falling = 0.5 * (1 + math.cos(math.pi * update / self.updates))
        return self.peak * min(rising, falling)


def new_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Returns an AdamW that decays the trainable matrices and leaves norms and biases alone."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [weight for weight in parameters if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [vector for vector in parameters if vector.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))


def take_update(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float) -> None:
    """Moves the optimizer's parameters once along the clipped gradient of ``loss``, a scalar."""
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    clip_and_step(optimizer, learning_rate)


def clip_and_step(optimizer: torch.optim.Optimizer, learning_rate: float) -> float:
    """Moves the parameters along their clipped gradients; returns the gradients' norm before it was clipped.

    A group's learning rate is ``learning_rate`` times its ``scale``, if it has one.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
    optimizer.step()
    return float(norm)
