"""LoRA adapters, merged into the weights of their base, so that a plain checkpoint is served.

W + scale * B A for each adapted linear layer (arXiv 2106.09685), and whole tensors where the adapter saved a module,
such as the head. Kinds of adapter that are not this sum are refused by name.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.network.tensors import read_tensors, tensor_shapes

CONFIG: Final = "adapter_config.json"
CURE: Final = "merge the adapter into its base with peft (merge_and_unload) and import the result"
PLAIN_STARTS: Final = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base as it is. Others subtract their start from it."""
FOLLOWED: Final = frozenset({"peft_type", "r", "lora_alpha", "use_rslora", "fan_in_fan_out", "task_type", "bias"})
"""Fields that ``Adapter`` follows, apart from ``init_lora_weights``."""
IN_TENSORS: Final = frozenset(
    {"target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"}
)
"""Fields that choose layers, which the names of the tensors tell too."""
WITHOUT_EFFECT: Final = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "peft_version",
        "inference_mode",
        "lora_dropout",
        "runtime_config",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
    }
)
"""Fields of training, of the library, or of a kind that another field turns on."""
_CLASSES: Final = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
_WRAPPERS: Final = re.compile(r"^(?:base_model\.model\.)?(?:model\.)?(?:language_model\.)?(?:model\.)?")
_WHOLE: Final = re.compile(
    r"(?!.*(?:lora_|modules_to_save|original_module|base_layer|token_adapter)).*\.(?:weight|bias)"
)
_MATRIX: Final = re.compile(r".*\.lora_[AB]\.weight")


class Adapter:
    """The changes of an adapter. Pass each tensor of the base to ``merged``; ``remaining`` then returns the rest."""

    def __init__(self, path: Path) -> None:
        config, shapes = _read_config(path), tensor_shapes(path)
        if odd := sorted(name for name in shapes if not (_WHOLE.fullmatch(name) or _MATRIX.fullmatch(name))):
            raise CheckpointError(f"{path}: {one_line(odd[0], 200)} is not merged here; {CURE}")
        self._tensors = {_plain(name): tensor for name, tensor in read_tensors(path, set(shapes)).items()}
        self._rank, alpha = config.get("r"), config.get("lora_alpha")
        if not isinstance(self._rank, int) or not isinstance(alpha, int | float) or self._rank < 1:
            raise CheckpointCorrupt(f"{path / CONFIG}: r and lora_alpha must be numbers")
        self._scale = alpha / (math.sqrt(self._rank) if config.get("use_rslora") else self._rank)
        self._transposed = bool(config.get("fan_in_fan_out"))
        self._class = _CLASSES.get(str(config.get("task_type")), "")
        self._saved = set(self._tensors)
        self._base = set[str]()

    def architecture(self, base: str) -> str:
        """The architecture of the base with the adapter: an adapter for classification brings a head of its own."""
        return base.replace("ForCausalLM", self._class) if self._class else base

    def merged(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the base with the adapter's change, in its own dtype.

        Raises:
            CheckpointError: the adapter's change has another shape or rank, or is of a layer that is not linear.
        """
        plain = _plain(name)
        self._base.add(plain)
        if plain in self._tensors:
            return self._same_shape(name, tensor, self._tensors.pop(plain))
        layer = plain.removesuffix(".weight")
        down, up = (self._tensors.pop(f"{layer}.lora_{part}.weight", None) for part in "AB")
        if down is None or up is None:
            if down is not None or up is not None:
                raise CheckpointCorrupt(f"the adapter has only one of the two matrices of {name}")
            return tensor
        if any(matrix.dim() != 2 for matrix in (tensor, down, up)):
            raise CheckpointError(
                f"{name} is not the weight of a linear layer, so its change is not merged here; {CURE}"
            )
        if not up.shape[1] == down.shape[0] == self._rank:
            raise CheckpointCorrupt(f"the adapter's two matrices of {name} have other ranks than its r, {self._rank}")
        change = self._scale * (up.float() @ down.float())
        change = change.T if self._transposed else change
        return (tensor.float() + self._same_shape(name, tensor, change)).to(tensor.dtype)

    def remaining(self) -> dict[str, Tensor]:
        """Tensors that the base does not have: modules that the adapter saved, such as a head.

        Raises:
            CheckpointError: changes to layers that the base does not have, or to embeddings that are its output layer
                too, for the adapter was trained with the old output layer.
        """
        names = self._base | self._saved
        if "embed_tokens.weight" in self._saved and not self._class and not names & {"lm_head.weight", "score.weight"}:
            raise CheckpointError(f"the adapter saves embeddings, which its base ties to its output layer; {CURE}")
        if changes := sorted(name for name in self._tensors if ".lora_" in name):
            raise CheckpointCorrupt(f"the adapter changes {one_line(changes[0])}, which its base does not have")
        return self._tensors

    def refuse_unread(self, layers: Sequence[str]) -> None:
        """Refuses a saved module that neither the base has nor a head of ``layers`` reads. Call it after ``remaining``.

        Raises:
            CheckpointError: there is one.
        """
        read = {f"{layer}.{part}" for layer in (*layers, "lm_head") for part in ("weight", "bias")}
        if unread := sorted(self._tensors.keys() - read):
            raise CheckpointError(
                f"the adapter saves {one_line(unread[0])}, which neither its base has nor the head of the recipe reads"
            )

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
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: adapters with a bias are not merged here; {CURE}")
    start = config.get("init_lora_weights")
    if start not in PLAIN_STARTS:
        raise CheckpointError(
            f"{file}: init_lora_weights {one_line(json.dumps(start))} changes the base, which is not done here; {CURE}"
        )
    harmless = FOLLOWED | IN_TENSORS | WITHOUT_EFFECT | {"init_lora_weights"}
    if odd := sorted(name for name, value in config.items() if value and name not in harmless):
        raise CheckpointError(f"{file}: {one_line(odd[0])} is not merged here; {CURE}")
    return config


def _plain(name: str) -> str:
    """A tensor's name in the backbone, without the classes that wrap it: those of a composite have older names too."""
    return _WRAPPERS.sub("", name)
