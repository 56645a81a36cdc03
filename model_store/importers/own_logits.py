"""Compares a head over logits with the logits of transformers' own language model class, on a sample.

The class may scale, cap or cut its logits. A head here repeats some of that, and this finds what it does not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from model_store.errors import CheckpointError
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint
from model_store.network.head_loading import OUTPUT_BIAS, output_layer
from model_store.network.model import RewardModel
from model_store.network.tensors import read_tensors

TOLERANCE: Final = {torch.float32: 1e-3}
COARSE: Final = 0.05
"""Tolerance of other dtypes. Both are relative to the largest logit."""


@torch.inference_mode()
def refuse_other_logits(
    checkpoint: Checkpoint, model: RewardModel, token_ids: Sequence[int], ends: Sequence[int], raw: Sequence[float]
) -> None:
    """Refuses a head over logits whose scores are not those of the language model's own logits.

    A language model that cannot be put together from its backbone and output layer is not compared.

    Args:
        checkpoint: its directory and recipe; heads that read no logits are not compared.
        model: backbone and head, loaded.
        token_ids: those of a sample [T].
        ends: the read positions.
        raw: the scores there.

    Raises:
        CheckpointError: they differ.
    """
    score = checkpoint.manifest.score
    if score.head not in ("token", "token_pair", "vocabulary_mean"):
        return
    try:
        logits_TV = (
            _language_model(checkpoint.path, model)(torch.tensor([token_ids]), use_cache=False).logits[0].float()
        )
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return
    own = _read(logits_TV[torch.tensor(ends)], score)
    bound = TOLERANCE.get(model.backbone.dtype, COARSE) * (1 + float(logits_TV.abs().max()))
    if (own - torch.tensor(raw)).abs().max() > bound:
        raise CheckpointError(
            f"the language model's own logits give a sample {float(own[0]):.4g} and this head {raw[0]:.4g}: its class "
            "changes its logits in a way that no head here does"
        )


def _read(logits_RV: Tensor, score: ScoreRecipe) -> Tensor:
    sign = -1 if score.direction == "lower" else 1
    if score.head == "vocabulary_mean":
        return sign * logits_RV.mean(-1)
    good, *bad = (logits_RV[:, token] for token in score.tokens)
    return sign * (good - bad[0] if bad else good)


def _language_model(path: Path, model: RewardModel) -> Any:
    """The language model class over the loaded backbone: no weight is in memory twice."""
    backbone = model.backbone
    with torch.device("meta"):
        whole: Any = AutoModelForCausalLM.from_config(backbone.config).eval()
    setattr(whole, whole.base_model_prefix, backbone)
    layer = whole.get_output_embeddings()
    layer.weight = nn.Parameter(output_layer(path, backbone).to(backbone.dtype), requires_grad=False)
    if getattr(layer, "bias", None) is not None:
        bias_V = read_tensors(path, {OUTPUT_BIAS})[OUTPUT_BIAS]
        layer.bias = nn.Parameter(bias_V.to(backbone.dtype), requires_grad=False)
    return whole
