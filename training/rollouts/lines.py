"""Rollouts as lines of ``agentprm.rollouts``, and lines as rollouts."""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from agentprm import messages
from agentprm.errors import InvalidRequest
from agentprm.rollouts import TrajectoryLine, write_line
from agentprm.types import Conversation, Message, Trajectory
from training.rollouts.query import digest
from training.rollouts.rollout import Rollout


def from_line(line: TrajectoryLine) -> Rollout:
    """Returns the rollout of a line; a line without a query gets one from the text of its task.

    Raises:
        InvalidRequest: its history has no step, or cannot be scored as it is.
    """
    history = messages.to_steps(line)
    if isinstance(history, Trajectory) and not history.steps:
        raise InvalidRequest("steps must hold at least one step")
    return Rollout(
        history=history,
        outcome=line.outcome,
        truncated=line.truncated,
        query=line.query or digest(task_text(history)),
        observation=line.observation or "",
        trajectory_id=line.trajectory_id,
        continuations=tuple(map(tuple, line.continuations or ())),
        labels=tuple(line.labels or ()),
        metadata=line.metadata or {},
    )


def task_text(history: Trajectory | Conversation) -> str:
    """Returns the text that says which task it is: the task, or the first user turn of a chat.

    A chat whose user never speaks before the agent is told apart by all that stands before the agent's first turn.
    """
    if isinstance(history, Trajectory):
        return history.task
    for message in history.messages:
        if message.role == "user":
            return message.text
    return "\n".join(message.text for message in history.messages[: history.step_ends[0] - 1])


def to_line(rollout: Rollout) -> TrajectoryLine:
    """Returns the line of a rollout."""
    fields: dict[str, Any] = {
        **_history(rollout.history),
        "outcome": rollout.outcome,
        "truncated": rollout.truncated,
        "query": rollout.query,
        "trajectory_id": rollout.trajectory_id,
        "continuations": list(map(list, rollout.continuations)) or None,
        "labels": list(rollout.labels) or None,
        "metadata": dict(rollout.metadata) or None,
    }
    if isinstance(rollout.history, Trajectory):
        fields["observation"] = rollout.observation or None
    return TrajectoryLine.model_validate(fields)


def _history(history: Trajectory | Conversation) -> dict[str, Any]:
    if isinstance(history, Trajectory):
        steps = [{"observation": step.observation, "action": step.action} for step in history.steps]
        return {"task": history.task, "steps": steps}
    return {
        "messages": [_message(message) for message in history.messages],
        "tools": [json.loads(tool) for tool in history.tools] or None,
        "reasoning": "include" if history.include_reasoning else None,
    }


def _message(message: Message) -> dict[str, Any]:
    content: Any = message.content
    if isinstance(content, tuple):
        content = [{"type": "text", "text": text} for text in content]
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {
        "role": message.role,
        "content": content,
        "reasoning_content": message.reasoning,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }


def data_digest(rollouts: Sequence[Rollout]) -> str:
    """A hash of all rollouts in their order, as rollout lines."""
    total = sha256()
    for rollout in rollouts:
        total.update(write_line(to_line(rollout)))
    return f"sha256:{total.hexdigest()}"
