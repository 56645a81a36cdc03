"""Conversion of request items to what the model scores: task, steps, observation, candidates.

An OpenAI chat becomes a trajectory so: the system turns and the first user turn are the task; later user and tool
turns up to an assistant turn are that step's observation; an assistant turn, tool calls included, is its action.
"""

import json
from collections.abc import Sequence
from typing import Any

from agentprm.errors import InvalidRequest
from agentprm.types import State, Step, Trajectory
from agentprm.wire import Message, RankItem, StepBody, TrajectoryItem


def to_trajectory(item: TrajectoryItem) -> Trajectory:
    """The trajectory of an item.

    Raises:
        InvalidRequest: a chat without a task, without an assistant turn, or not ending in one.
    """
    if item.messages is None:
        assert item.task is not None
        return Trajectory(item.task, _steps(item.steps or ()))
    state = _chat_state(item.messages[:-1])
    if item.messages[-1].role != "assistant":
        raise InvalidRequest("the last message must be the assistant's: its step is scored")
    return state.take(action_text(item.messages[-1]))


def to_state(item: RankItem) -> tuple[State, list[str]]:
    """The state of an item and the candidate actions proposed in it; no candidates if the service is to sample them.

    Raises:
        InvalidRequest: a chat without a task, ending in an assistant turn, or a candidate that is no action.
    """
    candidates = [
        candidate if isinstance(candidate, str) else action_text(candidate) for candidate in item.candidates or ()
    ]
    if item.messages is None:
        assert item.task is not None
        return State(item.task, _steps(item.steps or ()), item.observation or ""), candidates
    if item.messages[-1].role == "assistant":
        raise InvalidRequest("the last message must not be the assistant's: candidates are its next turn")
    return _chat_state(item.messages), candidates


def action_text(message: Message) -> str:
    """An assistant turn as text: its content, then each tool call as one line of canonical JSON.

    Raises:
        InvalidRequest: a turn of another role, or an empty one.
    """
    if message.role != "assistant":
        raise InvalidRequest(f"an action is an assistant message, not a {message.role} message")
    lines = [_content(message)] if _content(message) else []
    lines += [
        json.dumps(
            {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            ensure_ascii=False,
            sort_keys=True,
        )
        for call in message.tool_calls or ()
    ]
    if not lines:
        raise InvalidRequest("an assistant message needs content or tool_calls")
    return "\n".join(lines)


def _steps(bodies: Sequence[StepBody]) -> tuple[Step, ...]:
    return tuple(Step(body.observation, body.action) for body in bodies)


def _chat_state(messages: Sequence[Message]) -> State:
    task_length = _task_length(messages)
    steps: list[Step] = []
    observed: list[str] = []
    for message in messages[task_length:]:
        if message.role == "assistant":
            steps.append(Step("\n".join(observed), action_text(message)))
            observed = []
        else:
            observed.append(_content(message))
    task = "\n".join(_content(message) for message in messages[:task_length])
    if not task:
        raise InvalidRequest("the first messages must hold the task: system and user text before any other turn")
    return State(task, tuple(steps), "\n".join(observed))


def _task_length(messages: Sequence[Message]) -> int:
    """Returns the number of leading turns that are the task: system turns, up to and including the first user turn."""
    for index, message in enumerate(messages):
        if message.role == "user":
            return index + 1
        if message.role in ("assistant", "tool"):
            return index
    return len(messages)


def _content(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _arguments(text: str) -> Any:
    """Returns parsed arguments, so that white space changes no score; text that is no JSON stays as written."""
    try:
        return json.loads(text)
    except ValueError:
        return text
