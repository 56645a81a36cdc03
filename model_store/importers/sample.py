"""The sample that every import scores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentprm.types import Conversation, Message, Step, ToolCall, Trajectory
from model_store.errors import CheckpointError
from model_store.format.recipe import ScoreRecipe
from model_store.network.log_ratio import own_tokens
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.renderer import Renderer

SAMPLE: Final = Trajectory(
    "There are 3 apples in a basket and 4 more on the table. How many are there?",
    (Step("", "There are 3 apples in the basket."), Step("", "3 + 4 = 7, so there are 7 apples.")),
)
SAMPLE_CHAT: Final = Conversation(
    (
        Message("user", SAMPLE.task),
        Message("assistant", SAMPLE.steps[0].action),
        Message("user", "Go on."),
        Message("assistant", SAMPLE.steps[1].action),
    )
)
"""The sample for chat templates: some refuse two turns of the assistant in a row."""
_CALL: Final = ToolCall("count", '{"place": "table", "what": "apples"}', "call00001")
_TOOL: Final = (
    '{"type": "function", "function": {"name": "count", "description": "Counts things in a place.", "parameters": '
    '{"type": "object", "properties": {"place": {"type": "string"}, "what": {"type": "string"}}, '
    '"required": ["place", "what"]}}}'
)
AGENT_CHAT: Final = Conversation(
    (
        Message("system", "You count fruit."),
        Message("user", "How many apples are on the table?"),
        Message("assistant", "", "I have to look.", (_CALL,)),
        Message("tool", "4 apples", tool_call_id="call00001", name="count"),
        Message("assistant", "There are 4 apples on the table."),
    ),
    (_TOOL,),
)
"""A chat as agents have it, for people to look at."""


def sample_for(renderer: Renderer | ChatRenderer) -> Trajectory | Conversation:
    """The sample that a template has a place for."""
    return SAMPLE if isinstance(renderer, Renderer) else SAMPLE_CHAT


def left_out(renderer: ChatRenderer) -> list[str]:
    """The parts of ``AGENT_CHAT`` that the template has no place for.

    Raises:
        Unrenderable: the template refuses that chat.
    """
    said, whole = AGENT_CHAT.messages[2], renderer.text(AGENT_CHAT)
    without = {
        "tools": replace(AGENT_CHAT, tools=()),
        "tool calls": _with_third(replace(said, tool_calls=())),
        "reasoning": _with_third(replace(said, reasoning=None)),
    }
    return [name for name, chat in without.items() if renderer.text(chat) == whole]


def _with_third(message: Message) -> Conversation:
    messages = AGENT_CHAT.messages
    return replace(AGENT_CHAT, messages=(*messages[:2], message, *messages[3:]))


def refuse_unread_steps(token_ids: Sequence[int], reads: Sequence[int], score: ScoreRecipe) -> None:
    """Refuses a log-ratio that counts no token of a step: it would be 0 and look like a score."""
    if score.closes is None:
        return
    own, begin = own_tokens(token_ids, score.opens, score.closes), 0
    for end in reads:
        if not any(own[begin : end + 1]):
            raise CheckpointError("score: opens and closes find nothing that the agent says in a step of the template")
        begin = end + 1
