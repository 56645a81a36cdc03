"""Refuses models that read later tokens: a step's score must not depend on what follows the step."""

from typing import Final

import torch
from transformers import PreTrainedModel

from model_store.errors import CheckpointError
from service.engine.sample_tokens import sample_tokens

_READ: Final = 4
_LATER: Final = 4
_TOLERANCE: Final = 0.1
"""Share of the hidden states' size by which later tokens may change them: far above rounding in half precision."""


@torch.inference_mode()
def refuse_unless_causal(backbone: PreTrainedModel) -> None:
    """Compares the hidden states of a few tokens with and without later tokens.

    Rounding may send single tokens of a mixture of experts to another expert, so most of the tokens decide.

    Raises:
        CheckpointError: later tokens change the hidden states.
    """
    token_ids = sample_tokens(backbone, _READ + _LATER)
    alone, followed = (
        backbone(input_ids=token_ids[:, :end], use_cache=False).last_hidden_state[0, :_READ].float()
        for end in (_READ, _READ + _LATER)
    )
    changes = (followed - alone).norm(dim=-1) / alone.norm(dim=-1)
    if changes.median() > _TOLERANCE:
        raise CheckpointError(
            f"{type(backbone).__name__} lets tokens read later ones, so the score of a step would depend on what "
            "follows; only causal models can be served"
        )
