"""Chats as tasks, steps and actions, for templates without roles; and tasks and steps as chats, for those with roles.

The system turns and the first user turn of a chat are the task. Later user and tool turns up to an assistant turn are
that step's observation; an assistant turn, tool calls included, is its action.
"""

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Final, Literal, Never

from agentprm.types import Conversation, Message, State, Step, Trajectory
from model_store.text.runs import Unrenderable


def as_trajectory(history: Trajectory | Conversation) -> Trajectory:
    """The steps of a chat that ends in an assistant turn; a trajectory as it is.

    Raises:
        Unrenderable: a chat without a task, or with tools.
    """
    if isinstance(history, Trajectory):
        return history
    return _state(history.messages[:-1], history).take(action_text(history.messages[-1]))


def as_state(state: State | Conversation) -> State:
    """The steps of a chat and the observation that it ends in; a state as it is. Raises as ``as_trajectory``."""
    return state if isinstance(state, State) else _state(state.messages, state)


def as_conversation(history: Trajectory | State | Conversation, observation: Literal["user", "tool"]) -> Conversation:
    """The chat of a trajectory or a state; a chat as it is.

    The task is the first user turn. Observations that are not empty are turns of the role ``observation``.
    """
    if isinstance(history, Conversation):
        return history
    messages = [Message("user", history.task)]
    for step in history.steps:
        messages += [Message(observation, step.observation)] if step.observation else []
        messages.append(Message("assistant", step.action))
    if isinstance(history, State) and history.observation:
        messages.append(Message(observation, history.observation))
    return Conversation(tuple(messages))


def as_message(action: str | Message) -> Message:
    """An action as an assistant turn."""
    return Message("assistant", action) if isinstance(action, str) else action


def action_text(action: str | Message) -> str:
    """An assistant turn as text: its reasoning, its content, then each tool call as one line of canonical JSON."""
    if isinstance(action, str):
        return action
    lines = [text for text in (action.reasoning, action.text) if text]
    lines += [
        json.dumps(
            {"name": call.name, "arguments": parsed_arguments(call.arguments)}, ensure_ascii=False, sort_keys=True
        )
        for call in action.tool_calls
    ]
    return "\n".join(lines)


def parsed_arguments(text: str) -> Any:
    """Returns the value of arguments that are JSON, so that white space changes no score; else the text as written.

    Different arguments are different here. So a text stays as written if Python would lose a part of it: the first of
    two equal keys, digits of a number, a number that is not finite. A text that is one JSON string stays too, because
    the same text without quotes is no JSON.
    """
    try:
        value = _EXACT.decode(text)
    except ValueError:
        return text
    return text if isinstance(value, str) else value


def _exact_float(digits: str) -> float:
    value = float(digits)
    try:
        if isfinite(value) and Decimal(digits) == Decimal(repr(value)):
            return value
    except InvalidOperation:  # an exponent of twenty digits
        pass
    raise ValueError


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError
    return fields


def _no_json(_: str) -> Never:
    raise ValueError


_EXACT: Final = json.JSONDecoder(object_pairs_hook=_distinct, parse_float=_exact_float, parse_constant=_no_json)


def task_length(messages: Sequence[Message]) -> int:
    """The number of leading turns that are the task: system turns, up to and including the first user turn."""
    for index, message in enumerate(messages):
        if message.role == "user":
            return index + 1
        if message.role in ("assistant", "tool"):
            return index
    return len(messages)


def _state(messages: Sequence[Message], conversation: Conversation) -> State:
    if conversation.tools:
        raise Unrenderable("tools: the template of this checkpoint has no place for them; leave them out")
    begin = task_length(messages)
    steps: list[Step] = []
    observed: list[str] = []
    for message in messages[begin:]:
        if message.role == "assistant":
            steps.append(Step("\n".join(observed), action_text(message)))
            observed = []
        else:
            observed.append(message.text)
    task = "\n".join(message.text for message in messages[:begin])
    if not task:
        raise Unrenderable("the first messages must hold the task: system and user text before any other turn")
    return State(task, tuple(steps), "\n".join(observed))
