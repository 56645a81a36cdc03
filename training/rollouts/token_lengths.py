"""Lengths of rollouts in the tokens of a model, as they would be trained and served."""

from collections.abc import Iterable, Iterator

from agentprm.types import Conversation, Trajectory
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.conversations import as_conversation, as_trajectory
from model_store.text.renderer import Renderer
from model_store.text.runs import Unrenderable


def token_lengths(
    histories: Iterable[Trajectory | Conversation], renderer: Renderer | ChatRenderer
) -> Iterator[int | str]:
    """Yields the number of tokens of each history up to its last action, or why the template has no place for it."""
    for history in histories:
        try:
            yield _length(history, renderer)
        except Unrenderable as error:
            yield str(error)


def _length(history: Trajectory | Conversation, renderer: Renderer | ChatRenderer) -> int:
    if isinstance(renderer, Renderer):
        return len(renderer.trajectory(as_trajectory(history)).token_ids)
    return len(renderer.token_ids(as_conversation(history, renderer.chat.observation)))
