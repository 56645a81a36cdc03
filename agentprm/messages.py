"""Conversion of request items to what the model scores: a trajectory or a chat, and the candidates.

A chat keeps its roles, tool calls and tools here. The checkpoint's template decides how they become text.
"""

from collections.abc import Sequence

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.types import Conversation, Message, State, Step, ToolCall, Trajectory


def to_history(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    """The history of an item; its last step or assistant turn is the one that is scored.

    Raises:
        InvalidRequest: a chat that does not end in an assistant turn, or with a turn that says nothing.
    """
    if item.messages is None:
        assert item.task is not None
        return Trajectory(item.task, _steps(item.steps or ()))
    if item.messages[-1].role != "assistant":
        raise InvalidRequest("the last message must be the assistant's: its step is scored")
    return _conversation(item.messages)


def to_steps(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    """The history of an item up to its last assistant turn: later turns change the score of no step before them.

    Raises:
        InvalidRequest: a chat without an assistant turn, or with a turn that says nothing.
    """
    if item.messages is None or item.messages[-1].role == "assistant":
        return to_history(item)
    conversation = _conversation(item.messages)
    actions = [index for index, turn in enumerate(conversation.messages) if turn.role == "assistant"]
    if not actions:
        raise InvalidRequest("a chat needs at least one assistant message: each is a step")
    return conversation.until(actions[-1] + 1)


def to_proposal(item: wire.RankItem) -> tuple[State | Conversation, list[str | Message]]:
    """The state of an item and the candidate actions proposed in it; no candidates if the service is to sample them.

    Raises:
        InvalidRequest: a chat that ends in an assistant turn, or a candidate that is no action.
    """
    candidates = [
        candidate if isinstance(candidate, str) else _action(candidate) for candidate in item.candidates or ()
    ]
    if item.messages is None:
        assert item.task is not None
        return State(item.task, _steps(item.steps or ()), item.observation or ""), candidates
    if item.messages[-1].role == "assistant":
        raise InvalidRequest("the last message must not be the assistant's: candidates are its next turn")
    return _conversation(item.messages), candidates


def _steps(bodies: Sequence[wire.StepBody]) -> tuple[Step, ...]:
    return tuple(Step(body.observation, body.action) for body in bodies)


def _conversation(messages: Sequence[wire.Message]) -> Conversation:
    return Conversation(tuple(_action(turn) if turn.role == "assistant" else _message(turn) for turn in messages))


def _action(message: wire.Message) -> Message:
    if message.role != "assistant":
        raise InvalidRequest(f"an action is an assistant message, not a {message.role} message")
    action = _message(message)
    if not (action.text or action.tool_calls):
        raise InvalidRequest("an assistant message needs content or tool_calls")
    return action


def _message(message: wire.Message) -> Message:
    content = message.content
    return Message(
        role=message.role,
        content=tuple(part.text for part in content) if isinstance(content, list) else content,
        tool_calls=tuple(
            ToolCall(call.function.name, call.function.arguments, call.id) for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )
