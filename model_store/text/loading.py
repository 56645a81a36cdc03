"""The renderer of a checkpoint, whichever template it has, and what it makes of a history."""

from agentprm.types import Conversation, Trajectory
from model_store.format.store import Checkpoint
from model_store.text.chat_renderer import ChatRenderer, ReadTokens, load_chat_renderer, merged
from model_store.text.conversations import as_conversation, as_trajectory
from model_store.text.renderer import Renderer, load_renderer
from model_store.text.runs import UNLIMITED


def renderer_of(checkpoint: Checkpoint) -> Renderer | ChatRenderer:
    """Loads the renderer that the manifest asks for. Raises as ``load_renderer`` and ``load_chat_renderer``."""
    return load_renderer(checkpoint) if checkpoint.manifest.chat is None else load_chat_renderer(checkpoint)


def render(
    renderer: Renderer | ChatRenderer, history: Trajectory | Conversation, max_tokens: int = UNLIMITED
) -> list[ReadTokens]:
    """The token ids of a history and the positions at which its steps are read, in the order of the steps.

    Raises:
        TooManyTokens: a sequence has more than ``max_tokens``.
        Unrenderable: the template has no place for the history.
    """
    if isinstance(renderer, Renderer):
        rendered = renderer.trajectory(as_trajectory(history), max_tokens)
        return [ReadTokens(rendered.token_ids, rendered.step_ends)]
    chat = as_conversation(history, renderer.chat.observation)
    return merged(renderer.token_ids(chat.until(end), max_tokens) for end in chat.step_ends)
