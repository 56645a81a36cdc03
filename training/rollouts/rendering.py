"""What a model reads of rollouts: their lengths in its tokens, and what its template leaves out."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agentprm.types import Conversation, Message, Trajectory
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


def left_out_parts(histories: Iterable[Trajectory | Conversation], renderer: Renderer | ChatRenderer) -> Iterator[str]:
    """Yields a sentence for what chats hold and the template does not show, tried on the first chat that has it."""
    chats = [history for history in histories if isinstance(history, Conversation)]
    if isinstance(renderer, Renderer):
        return
    calling = next((chat for chat in chats if any(message.tool_calls for message in chat.messages)), None)
    if calling and _is_same(calling, replace(calling, messages=tuple(map(_renamed, calling.messages))), renderer):
        yield "the template of the base model does not show tool calls: an action that is only a call reads as empty"
    offered = next((chat for chat in chats if chat.tools), None)
    if offered and _is_same(offered, replace(offered, tools=()), renderer):
        yield "the template of the base model does not show which tools there are"


def _renamed(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(call, name=f"{call.name}_") for call in message.tool_calls))


def _is_same(one: Conversation, other: Conversation, renderer: ChatRenderer) -> bool:
    try:
        return renderer.text(one) == renderer.text(other)
    except Unrenderable:
        return False
