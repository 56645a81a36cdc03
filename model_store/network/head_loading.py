"""Loads the head that a score recipe describes from the tensors of its checkpoint.

Axes: H hidden, K outputs, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from model_store.errors import CheckpointCorrupt
from model_store.format.recipe import ScoreRecipe
from model_store.network.heads import MlpHead, VocabularyHead, output_head
from model_store.network.tensors import read_tensors

OUTPUT_LAYER: Final = "lm_head.weight"
OUTPUT_BIAS: Final = "lm_head.bias"
SCALED_LOGITS: Final = (
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
    "logits_soft_cap",
    "output_logit_soft_cap",
    "softcap",
)
"""Fields of a config that change a language model's logits in a way that no head here repeats."""


def load_head(path: Path, score: ScoreRecipe, backbone: PreTrainedModel) -> nn.Module:
    """The head of a checkpoint whose backbone is loaded.

    Raises:
        CheckpointCorrupt: files cannot be read; a tensor is missing, of the wrong shape, not of floating point or holds
            NaN or infinity; the recipe names an output or token that does not exist; or the model changes its logits
            in a way that no head here supports.
    """
    if score.head in ("linear", "mlp"):
        return layered_head(path, score, backbone.config.hidden_size)
    return _token_head(path, score, backbone)


def layered_head(path: Path, score: ScoreRecipe, hidden: int) -> nn.Module:
    """A ``linear`` or ``mlp`` head over ``hidden`` inputs. Raises as ``load_head`` does."""
    tensors = read_tensors(path, {f"{layer}.{part}" for layer in score.layers for part in ("weight", "bias")})
    _check_layers(path, score.layers, tensors, hidden)
    *between, last = ((tensors[f"{layer}.weight"], tensors.get(f"{layer}.bias")) for layer in score.layers)
    outputs, softmax = len(last[0]), score.activation == "softmax"
    if (score.output is None and outputs != 1) or (score.output or 0) >= outputs or (softmax and outputs == 1):
        raise CheckpointCorrupt(
            f"{path}: {score.layers[-1]}.weight has shape {list(last[0].shape)}, {outputs} outputs, "
            f"which do not fit score.output {score.output} and {score.activation} of the recipe"
        )
    head = output_head(*last, score.output or 0, softmax=softmax, sign=_sign(score))
    return MlpHead([_linear(weight, bias) for weight, bias in between], head) if between else head


def _check_layers(path: Path, layers: Sequence[str], tensors: Mapping[str, Tensor], hidden: int) -> None:
    """Refuses layers whose inputs are not the outputs of the layer before, or of the backbone for the first."""
    inputs = hidden
    for layer in layers:
        weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
        if weight is None:
            raise CheckpointCorrupt(f"{path}: no tensor {layer}.weight in its safetensors files")
        shape = list(weight.shape)
        if len(shape) != 2 or not shape[0] or shape[1] != inputs:
            raise CheckpointCorrupt(f"{path}: {layer}.weight has shape {shape}, the backbone needs [outputs, {inputs}]")
        if bias is not None and list(bias.shape) != shape[:1]:
            raise CheckpointCorrupt(f"{path}: {layer}.bias has shape {list(bias.shape)}, its weight needs {shape[:1]}")
        inputs = shape[0]
    for name, tensor in tensors.items():
        _refuse_unusable(tensor, f"{path}: {name}")


def _refuse_unusable(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise CheckpointCorrupt(f"{name} is {tensor.dtype}, a head needs floating point")
    if not tensor.float().isfinite().all():
        raise CheckpointCorrupt(f"{name} holds NaN or infinity")


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
    return layer


def vocabulary_head(path: Path, score: ScoreRecipe, backbone: PreTrainedModel) -> VocabularyHead:
    """A language model's whole output layer, which must know the tokens of a ``log_ratio``. Raises as ``load_head``."""
    cap, rows_VH = _soft_cap(path, backbone), output_layer(path, backbone)
    if absent := [token for token in (*score.opens, score.closes or 0) if token >= len(rows_VH)]:
        raise CheckpointCorrupt(
            f"{path}: score.opens and closes name {absent[0]}, the output layer knows {len(rows_VH)} tokens"
        )
    if read_tensors(path, {OUTPUT_BIAS}):
        raise CheckpointCorrupt(f"{path}: {OUTPUT_BIAS} moves the logits, which no log_ratio head here does")
    _refuse_unusable(rows_VH, f"{path}: the output layer")
    return VocabularyHead(rows_VH, cap)


def _soft_cap(path: Path, backbone: PreTrainedModel) -> float | None:
    """The soft cap of the logits, None without one. Refuses logits that are scaled."""
    config = backbone.config
    if scaled := [name for name in SCALED_LOGITS if getattr(config, name, None) not in (None, 1)]:
        raise CheckpointCorrupt(f"{path}: {scaled[0]} in config.json scales the logits, which no token head here does")
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    return cap


def _token_head(path: Path, score: ScoreRecipe, backbone: PreTrainedModel) -> nn.Module:
    """A head of the output layer's rows for the tokens of the recipe, or of the mean of all rows."""
    cap = _soft_cap(path, backbone)
    rows_VH, bias_V = output_layer(path, backbone), read_tensors(path, {OUTPUT_BIAS}).get(OUTPUT_BIAS)
    if bias_V is not None and list(bias_V.shape) != [len(rows_VH)]:
        raise CheckpointCorrupt(f"{path}: {OUTPUT_BIAS} has shape {list(bias_V.shape)}, not [{len(rows_VH)}]")
    if score.head == "vocabulary_mean":
        if cap is not None:
            raise CheckpointCorrupt(f"{path}: its logits are soft-capped, and their mean is not one of rows")
        weight_KH = rows_VH.mean(0, keepdim=True, dtype=torch.float64)
        bias_K = None if bias_V is None else bias_V.mean(0, keepdim=True, dtype=torch.float64)
    elif absent := [token for token in score.tokens if token >= len(rows_VH)]:
        raise CheckpointCorrupt(f"{path}: score.tokens names {absent[0]}, the output layer knows {len(rows_VH)} tokens")
    else:
        weight_KH = rows_VH[torch.tensor(score.tokens)]
        bias_K = None if bias_V is None else bias_V[torch.tensor(score.tokens)]
    for tensor in (weight_KH, bias_K):
        if tensor is not None:
            _refuse_unusable(tensor, f"{path}: the output layer")
    return output_head(weight_KH, bias_K, 0, softmax=score.activation == "softmax", cap=cap, sign=_sign(score))


def output_layer(path: Path, backbone: PreTrainedModel) -> Tensor:
    """The rows [V, H] of a language model's output layer, which are the embeddings if the two are tied.

    Raises:
        CheckpointCorrupt: there is no such tensor, or it is of another shape.
    """
    config = backbone.config
    rows_VH = read_tensors(path, {OUTPUT_LAYER}).get(OUTPUT_LAYER)
    if rows_VH is None:
        embeddings = backbone.get_input_embeddings()
        if not config.tie_word_embeddings or not isinstance(embeddings, nn.Embedding):
            raise CheckpointCorrupt(f"{path}: no tensor {OUTPUT_LAYER} in its safetensors files")
        rows_VH = embeddings.weight.detach()
        if isinstance(rows_VH, DTensor):  # split over processes, of which each holds a part
            rows_VH = rows_VH.full_tensor()
    if rows_VH.dim() != 2 or rows_VH.shape[1] != config.hidden_size:
        shape = list(rows_VH.shape)
        raise CheckpointCorrupt(f"{path}: {OUTPUT_LAYER} has shape {shape}, not [vocabulary, {config.hidden_size}]")
    return rows_VH


def _sign(score: ScoreRecipe) -> int:
    return -1 if score.direction == "lower" else 1
