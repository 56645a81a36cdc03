"""Checks that a model reads from left to right: every step's score rests on that."""

from collections.abc import Sequence
from typing import Final

from model_store.errors import CheckpointError
from model_store.network.model import RewardModel, score_rows

TOLERANCE: Final = {"float32": 1e-3}
COARSE: Final = 0.1
"""Tolerance of other dtypes, of a score and relative to it."""


def refuse_later_tokens(
    model: RewardModel, token_ids: Sequence[int], ends: Sequence[int], raw: Sequence[float], dtype: str
) -> None:
    """Refuses a model whose score of a step changes with the steps after it, as encoders' do.

    Args:
        model: the loaded model.
        token_ids: those of a sample [T].
        ends: the read position of each step.
        raw: the scores there, in the company of all tokens.
        dtype: the backbone's, as the manifest names it.

    Raises:
        CheckpointError: a step alone scores otherwise.
    """
    end, together = ends[0], raw[0]
    ((alone,),) = score_rows(model, [token_ids[: end + 1]], [[end]])
    if abs(alone - together) > TOLERANCE.get(dtype, COARSE) * (1 + abs(alone)):
        raise CheckpointError(
            f"a step scores {alone:.4g} alone and {together:.4g} before a later one: the model does not read from left "
            "to right, so it has no score of a step within a history"
        )
