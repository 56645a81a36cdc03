"""Step scores of rollouts, by the renderer and the plain forward that serving equals."""

from collections.abc import Callable, Sequence

from model_store.format.store import Checkpoint
from model_store.network.model import RewardModel, load_model, score_rows
from model_store.text.chat_renderer import ReadTokens
from model_store.text.loading import renderer_of
from training.data.encoding import encode
from training.rollouts.rollout import Rollout


def raw_scores(model: RewardModel, histories: Sequence[Sequence[ReadTokens]]) -> list[list[float]]:
    """Returns the raw score of every step of each history, whose rows are given."""
    rows = [row for history in histories for row in history]
    raw = iter(score_rows(model.eval(), [row.token_ids for row in rows], [row.reads for row in rows]))
    return [[score for _ in history for score in next(raw)] for history in histories]


def raw_of(checkpoint: Checkpoint, rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Returns the raw score of every step of each rollout.

    Raises:
        AgentPRMError: a rollout cannot be rendered or has more tokens than the checkpoint reads.
    """
    context_length = checkpoint.manifest.context_length
    encoding = encode(rollouts, renderer_of(checkpoint), context_length)
    return raw_scores(load_model(checkpoint, "cpu", "auto"), [example.rows for example in encoding.examples])


def promises_of(raw: Sequence[Sequence[float]], promise: Callable[[float], float]) -> list[list[float]]:
    """Returns the promises of raw scores by a recipe's map."""
    return [[promise(score) for score in steps] for steps in raw]
