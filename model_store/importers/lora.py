"""LoRA adapters, merged into the weights of their base, so that a plain checkpoint is served.

W + scale * B A for each adapted layer (arXiv 2106.09685), and whole tensors where the adapter saved a module, such as
the head. Kinds of adapter that are not this sum are refused by name.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.network.tensors import read_tensors, tensor_shapes

CONFIG: Final = "adapter_config.json"
_CLASSES: Final = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
_WRAPPERS: Final = re.compile(r"^(?:base_model\.model\.)?(?:model\.)?(?:language_model\.)?(?:model\.)?")
_UNSUPPORTED: Final = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication", "megatron_config")


class Adapter:
    """The changes of an adapter. Pass each tensor of the base to ``merged``; ``remaining`` then returns the rest."""

    def __init__(self, path: Path) -> None:
        config = _read_config(path)
        self._tensors = {_plain(name): tensor for name, tensor in read_tensors(path, set(tensor_shapes(path))).items()}
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
            raise CheckpointCorrupt(f"{path / CONFIG}: r and lora_alpha must be numbers")
        self._scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        self._transposed = bool(config.get("fan_in_fan_out"))
        self._class = _CLASSES.get(str(config.get("task_type")), "")

    def architecture(self, base: str) -> str:
        """The architecture of the base with the adapter: an adapter for classification brings a head of its own."""
        return base.replace("ForCausalLM", self._class) if self._class else base

    def merged(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the base with the adapter's change, in its own dtype.

        Raises:
            CheckpointCorrupt: the adapter's change has another shape.
        """
        plain = _plain(name)
        if plain in self._tensors:
            return self._same_shape(name, tensor, self._tensors.pop(plain))
        layer = plain.removesuffix(".weight")
        down, up = (self._tensors.pop(f"{layer}.lora_{part}.weight", None) for part in "AB")
        if down is None or up is None:
            if down is not None or up is not None:
                raise CheckpointCorrupt(f"the adapter has only one of the two matrices of {name}")
            return tensor
        if up.shape[1] != down.shape[0]:
            raise CheckpointCorrupt(f"the adapter's two matrices of {name} have different ranks")
        change = self._scale * (up.float() @ down.float())
        change = change.T if self._transposed else change
        return (tensor.float() + self._same_shape(name, tensor, change)).to(tensor.dtype)

    def remaining(self) -> dict[str, Tensor]:
        """Tensors that the base does not have: modules that the adapter saved, such as a head.

        Raises:
            CheckpointCorrupt: changes to layers that the base does not have.
        """
        if changes := sorted(name for name in self._tensors if ".lora_" in name or "lora_embedding" in name):
            raise CheckpointCorrupt(f"the adapter changes {one_line(changes[0])}, which its base does not have")
        return self._tensors

    @staticmethod
    def _same_shape(name: str, tensor: Tensor, other: Tensor) -> Tensor:
        if tensor.shape != other.shape:
            raise CheckpointCorrupt(
                f"{name} has shape {list(tensor.shape)} in the base and {list(other.shape)} in the adapter"
            )
        return other


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: only adapters of peft_type LORA can be merged")
    if odd := [name for name in _UNSUPPORTED if config.get(name)]:
        raise CheckpointError(f"{file}: {odd[0]} is not merged here; merge the adapter with the library that made it")
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: adapters with a bias are not merged here")
    return config


def _plain(name: str) -> str:
    """A tensor's name in the backbone, without the classes that wrap it: those of a composite have older names too."""
    return _WRAPPERS.sub("", name)
