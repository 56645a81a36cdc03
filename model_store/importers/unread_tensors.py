"""Tensors within a backbone's layers that its class does not read: another class was trained with them."""

import re
from collections.abc import Sequence
from typing import Final

from model_store.errors import CheckpointError, one_line

_IN_A_LAYER: Final = re.compile(
    r"(?:(?:language_)?model\.)*(?:transformer\.|gpt_neox\.|backbone\.|decoder\.)?(?:layers|h|blocks)\.\d+\."
)
"""Layers of the text's backbone; a tower for pictures or a head that predicts further tokens has other names."""
_CONSTANT: Final = re.compile(r"\.(?:inv_freq|masked_bias|attn\.bias|attention\.bias)$")
"""Names of buffers that old versions of transformers saved: masks and frequencies, which follow from the config."""


def refuse_unread_tensors(unread: Sequence[str]) -> None:
    """Refuses a checkpoint whose layers hold tensors that its class leaves out, as transformers does with a warning.

    Args:
        unread: names of all tensors that the class does not read.

    Raises:
        CheckpointError: one of them belongs to a layer; the sentence names it.
    """
    if odd := [name for name in unread if _IN_A_LAYER.match(name) and not _CONSTANT.search(name)]:
        raise CheckpointError(
            f"transformers' class of this model_type does not read {one_line(odd[0])} and {len(odd) - 1} other tensors "
            "of its layers; they are of another class, whose code is not run here"
        )
