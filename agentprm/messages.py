"""Conversion of request items to what the model scores: a trajectory or a chat, and the candidates.

A chat keeps its roles, tool calls and tools here. The checkpoint's template decides how they become text. Every error
names the turn, and what would go unread is refused (``agentprm.wire.chat_fields``).
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from agentprm import wire
from agentprm.content import text_and_reasoning
from agentprm.errors import InvalidRequest
from agentprm.tool_results import in_call_order
from agentprm.types import Conversation, Message, State, Step, ToolCall, Trajectory
from agentprm.wire.chat_fields import FUNCTION, MESSAGE, TOOL_CALL, Level
from agentprm.wire.size import MAX_DEPTH

_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)


def to_history(item: wire.History) -> Trajectory | Conversation:
    """The history of an item; its last step or assistant turn is the one that is scored.

    Raises:
        InvalidRequest: a chat that does not end in an assistant turn, or with a turn that cannot be scored as it is.
    """
    if item.messages is None:
        assert item.task is not None
        return Trajectory(item.task, _steps(item.steps or ()))
    if item.messages[-1].role not in ("assistant", None):
        raise InvalidRequest("the last message must be the assistant's: its step is scored")
    return _conversation(item)


def to_steps(item: wire.History) -> Trajectory | Conversation:
    """The history of an item up to its last assistant turn: later turns change the score of no step before them.

    Raises:
        InvalidRequest: a chat without an assistant turn, or with a turn that says nothing.
    """
    if item.messages is None or item.messages[-1].role == "assistant":
        return to_history(item)
    conversation = _conversation(item)
    if not conversation.step_ends:
        raise InvalidRequest("a chat needs at least one assistant message: each is a step")
    return conversation.until(conversation.step_ends[-1])


def to_proposal(item: wire.RankItem) -> tuple[State | Conversation, list[str | Message]]:
    """The state of an item and the candidate actions proposed in it; no candidates if the service is to sample them.

    Raises:
        InvalidRequest: a chat that ends in an assistant turn or cannot be scored as it is, or a candidate that is no
            action.
    """
    candidates = [
        candidate if isinstance(candidate, str) else _candidate(f"candidates.{at}", candidate, item)
        for at, candidate in enumerate(item.candidates or ())
    ]
    if item.messages is None:
        assert item.task is not None
        return State(item.task, _steps(item.steps or ()), item.observation or ""), candidates
    if item.messages[-1].role == "assistant":
        raise InvalidRequest("the last message must not be the assistant's: candidates are its next turn")
    return _conversation(item), candidates


def _steps(bodies: Sequence[wire.StepBody]) -> tuple[Step, ...]:
    return tuple(Step(body.observation, body.action) for body in bodies)


def _conversation(item: wire.History) -> Conversation:
    keeps = item.reasoning != "drop"
    messages = [_turn(f"messages.{at}", turn, keeps_reasoning=keeps) for at, turn in enumerate(item.messages or ())]
    return Conversation(in_call_order(messages), tuple(item.tools or ()), item.reasoning == "include")


def _candidate(place: str, candidate: wire.Message, item: wire.RankItem) -> Message:
    if candidate.role not in ("assistant", None):
        raise InvalidRequest(f"{place}: an action is an assistant message, not a {candidate.role} message")
    return _message(place, candidate, "assistant", keeps_reasoning=item.reasoning != "drop")


def _turn(place: str, turn: wire.Message, *, keeps_reasoning: bool) -> Message:
    if turn.role is None:
        raise InvalidRequest(f"{place}: a message needs a role")
    return _message(place, turn, turn.role, keeps_reasoning=keeps_reasoning)


def _message(place: str, turn: wire.Message, role: wire.Role, *, keeps_reasoning: bool) -> Message:
    content, reasoning = text_and_reasoning(place, turn)
    _refuse_unread(place, turn, role, reasoning)
    message = Message(
        role=role,
        content=content,
        reasoning=reasoning if keeps_reasoning else None,
        tool_calls=tuple(_call(f"{place}.tool_calls.{at}", call) for at, call in enumerate(turn.tool_calls or ())),
        tool_call_id=turn.tool_call_id or None,
        name=turn.name or turn.tool_name,
    )
    if role == "assistant" and not (message.text or message.tool_calls):
        raise InvalidRequest(f"{place}: an assistant message needs content or tool_calls")
    return message


def _refuse_unread(place: str, turn: wire.Message, role: wire.Role, reasoning: str | None) -> None:
    _refuse_unread_fields(place, MESSAGE, turn.model_extra, has_reasoning=reasoning is not None)
    if role != "assistant" and turn.tool_calls:
        raise InvalidRequest(f"{place}: only an assistant message may hold tool_calls")
    if role != "assistant" and reasoning is not None:
        raise InvalidRequest(f"{place}: only an assistant message may hold reasoning")
    if role != "tool" and turn.tool_call_id:
        raise InvalidRequest(f"{place}: only a tool message may hold tool_call_id")
    if turn.tool_name and (role != "tool" or turn.name not in (None, "", turn.tool_name)):
        raise InvalidRequest(f"{place}: tool_name is the name of the tool in a tool message, the same as name")


def _call(place: str, call: wire.ToolCall) -> ToolCall:
    if call.type not in (None, "function"):
        raise InvalidRequest(f"{place}: only calls of type function are scored")
    _refuse_unread_fields(place, TOOL_CALL, call.model_extra)
    if call.function is None:
        raise InvalidRequest(f"{place}: a tool call needs function with name and arguments")
    _refuse_unread_fields(f"{place}.function", FUNCTION, call.function.model_extra)
    arguments = call.function.arguments
    if _nests_deeper(arguments, MAX_DEPTH):
        raise InvalidRequest(f"{place}.function.arguments: they nest deeper than {MAX_DEPTH}")
    return ToolCall(call.function.name, arguments, call.id or None)


def _refuse_unread_fields(place: str, level: Level, others: dict[str, Any] | None, **turn: bool) -> None:
    if others and (unread := level.unread(others, **turn)):
        raise InvalidRequest(f"{place}: {level.refusal(unread)}")


def _nests_deeper(text: str, limit: int) -> bool:
    """Returns whether a JSON text nests deeper than ``limit``. Few texts have so many brackets at all."""
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for found in _STRING_OR_BRACKET.findall(text):
        depth += 1 if found in "[{" else -1 if found in "]}" else 0
        if depth > limit:
            return True
    return False
