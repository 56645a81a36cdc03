"""What turns hidden states into raw scores.

Axes: B batch, T tokens, H hidden.
"""

from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from agentprm.errors import CheckpointCorrupt
from model_store.manifest import shown

WEIGHT: Final = "score.weight"
BIAS: Final = "score.bias"


class LinearHead(nn.Module):
    """raw = w . hidden (+ b), always in float32: a score must not be rounded to the backbone's dtype."""

    def __init__(self, weight_H: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight_H = nn.Parameter(weight_H.float())
        self.bias = None if bias is None else nn.Parameter(bias.float())

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        raw_BT = hidden_BTH.float() @ self.weight_H
        return raw_BT if self.bias is None else raw_BT + self.bias


def load_linear_head(path: Path, hidden: int) -> LinearHead:
    """The head of a one-label ``*ForSequenceClassification`` checkpoint.

    Raises:
        CheckpointCorrupt: files that cannot be read, no ``score.weight``, or a tensor of another shape than
            [1, ``hidden``] (``score.bias``: [1]) or without fractions.
    """
    tensors = _read_tensors(path, {WEIGHT, BIAS})
    if WEIGHT not in tensors:
        raise CheckpointCorrupt(f"{path}: no tensor {WEIGHT} in its safetensors files")
    for name, needed in ((WEIGHT, [1, hidden]), (BIAS, [1])):
        tensor = tensors.get(name)
        if tensor is not None and list(tensor.shape) != needed:
            raise CheckpointCorrupt(f"{path}: {name} has shape {list(tensor.shape)}, the backbone needs {needed}")
        if tensor is not None and not tensor.is_floating_point():
            raise CheckpointCorrupt(f"{path}: {name} is {tensor.dtype}, a head needs floating point")
    return LinearHead(tensors[WEIGHT][0], tensors.get(BIAS))


def _read_tensors(path: Path, names: set[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= {name: torch.as_tensor(tensors.get_tensor(name)) for name in names & set(tensors.keys())}
        except (SafetensorError, OSError) as error:
            raise CheckpointCorrupt(f"{file} cannot be read: {shown(str(error), 500)}") from error
    return found
