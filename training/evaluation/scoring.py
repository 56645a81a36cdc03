"""Step scores of rollouts, by the renderer and the plain forward that serving equals."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

from agentprm.errors import AgentPRMError
from model_store.format.store import Checkpoint
from model_store.network.model import RewardModel, load_model, score_rows
from model_store.text.chat_renderer import ReadTokens
from model_store.text.loading import renderer_of
from training.data.encoding import encode
from training.rollouts.rollout import Rollout


class Scored(NamedTuple):
    """Rollouts with the raw score of each of their steps, and the names of those left out as too long."""

    rollouts: list[Rollout]
    raw: list[list[float]]
    too_long: list[str]


def raw_scores(model: RewardModel, histories: Sequence[Sequence[ReadTokens]]) -> list[list[float]]:
    """Returns the raw score of every step of each history, whose rows are given."""
    rows = [row for history in histories for row in history]
    raw = iter(score_rows(model.eval(), [row.token_ids for row in rows], [row.reads for row in rows]))
    return [[score for _ in history for score in next(raw)] for history in histories]


def scored(checkpoint: Checkpoint, rollouts: Sequence[Rollout], *, skip_too_long: bool = False) -> Scored:
    """Scores every step of each rollout.

    Raises:
        AgentPRMError: a rollout cannot be rendered, or has more tokens than the checkpoint reads and is not to be
            skipped; or the model gives a score that is not a number.
    """
    context_length = checkpoint.manifest.context_length
    encoding = encode(rollouts, renderer_of(checkpoint), context_length, skip_too_long=skip_too_long)
    raw = raw_scores(load_model(checkpoint, "cpu", "auto"), [example.rows for example in encoding.examples])
    for example, scores in zip(encoding.examples, raw, strict=True):
        if not all(map(isfinite, scores)):
            raise AgentPRMError(f"{checkpoint.manifest.reference} gives {example.name} a score that is not a number")
    return Scored([example.rollout for example in encoding.examples], raw, encoding.too_long)


def promises_of(raw: Sequence[Sequence[float]], promise: Callable[[float], float]) -> list[list[float]]:
    """Returns the promises of raw scores by a recipe's map."""
    return [[promise(score) for score in steps] for steps in raw]
