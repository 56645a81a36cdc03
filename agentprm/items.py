"""Trajectories, states and candidates as items of a request.

Whatever else is passed is refused with a sentence that says what is expected, before anything is sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from agentprm import wire
from agentprm.chats.objects import MessageObject, as_fields, is_object
from agentprm.errors import InvalidRequest
from agentprm.types import Overflow, State, Step, Trajectory

ChatMessage = MessageObject
"""One turn in OpenAI chat form: a mapping, a pydantic model such as ``wire.Message``, or a dataclass."""
Chat = Sequence[ChatMessage] | Mapping[str, Any]
"""Turns in order, or a mapping with them as ``messages`` beside ``tools`` and ``reasoning``."""
TrajectoryLike = Trajectory | Chat | wire.TrajectoryItem
Candidate = str | ChatMessage
"""A proposed action: text, or an assistant's turn."""
Candidates = Sequence[Candidate] | wire.Sample
"""Proposed actions, or how the service is to sample them."""
RankLike = tuple[State | Chat, Candidates] | wire.RankItem

Fields = dict[str, Any]
Item = TypeVar("Item", wire.TrajectoryItem, wire.RankItem)

_ONE_THING: Final = (str, bytes, bytearray, Mapping, wire.Body, wire.Message)
"""Types that Python can iterate over though they are one value and no list."""
_TRAJECTORY: Final = "a Trajectory, a chat (a list of messages, or a dict with them) or a TrajectoryItem"
_STATE: Final = "a State or a chat (a list of messages, or a dict with them)"
_PAIR: Final = "a pair (state, candidates) or a RankItem"


def trajectory_items(items: Iterable[TrajectoryLike], overflow: Overflow) -> list[Fields | wire.TrajectoryItem]:
    """Items of ``/score_step`` and ``/score_trajectory``. Those that say nothing of it have this ``overflow``.

    Raises:
        InvalidRequest: no list of trajectories.
    """
    listed = _listed("items", items, f"a list, each item {_TRAJECTORY}")
    return [_with_overflow(_trajectory(f"items.{index}", item), overflow) for index, item in enumerate(listed)]


def rank_items(items: Iterable[RankLike], overflow: Overflow) -> list[Fields | wire.RankItem]:
    """Items of ``/rank_actions``. Those that say nothing of it have this ``overflow``.

    Raises:
        InvalidRequest: no list of pairs (state, candidates).
    """
    listed = _listed("items", items, f"a list, each item {_PAIR}")
    return [_with_overflow(_proposal(f"items.{index}", item), overflow) for index, item in enumerate(listed)]


def _with_overflow(item: Fields | Item, overflow: Overflow) -> Fields | Item:
    return {"overflow": overflow, **item} if isinstance(item, dict) else item


def _trajectory(where: str, item: Any) -> Fields | wire.TrajectoryItem:
    if isinstance(item, wire.TrajectoryItem):
        return item
    if isinstance(item, State):
        raise InvalidRequest(
            f"{where}: a State has no action yet that could be scored: "
            "score state.take(action), or rank candidates in the state"
        )
    if isinstance(item, Trajectory):
        return _history(where, item)
    return _chat(where, item, _TRAJECTORY)


def _proposal(where: str, item: Any) -> Fields | wire.RankItem:
    if isinstance(item, wire.RankItem):
        return item
    if not (isinstance(item, tuple | list) and len(item) == 2):
        raise _unlike(where, _PAIR, item)
    state, candidates = item
    proposed = "sample" if isinstance(candidates, wire.Sample) else "candidates"
    history = _state(where, state)
    if "candidates" in history or "sample" in history:
        raise InvalidRequest(f"{where}.state must hold no candidates: they are the second of the pair")
    return {**history, proposed: _candidates(f"{where}.candidates", candidates)}


def _state(where: str, state: Any) -> Fields:
    if isinstance(state, Trajectory):
        raise InvalidRequest(
            f"{where}: candidates are ranked in a State(task, steps, observation), not in a Trajectory"
        )
    if isinstance(state, State):
        return {**_history(where, state), "observation": state.observation}
    return _chat(f"{where}.state", state, _STATE)


def _history(where: str, history: Trajectory | State) -> Fields:
    if history.task is None:
        raise _unlike(f"{where}.task", "a text", None)
    steps = _listed(f"{where}.steps", history.steps, "a tuple of Step(observation, action)")
    return {"task": history.task, "steps": [_step(f"{where}.steps.{at}", step) for at, step in enumerate(steps)]}


def _step(where: str, step: Any) -> Fields:
    try:
        return {"observation": step.observation, "action": step.action}
    except AttributeError:
        raise _unlike(where, "a Step(observation, action)", step) from None


def _chat(where: str, chat: Any, expected: str) -> Fields:
    if isinstance(chat, Mapping) and "messages" in chat:
        return {**chat, "messages": _turns(where, chat["messages"], "a list of messages")}
    return {"messages": _turns(where, chat, expected)}


def _turns(where: str, chat: Any, expected: str) -> list[Any]:
    if isinstance(chat, wire.Message) or (isinstance(chat, Mapping) and "role" in chat):
        raise InvalidRequest(
            f"{where}.messages must be a list of messages, not one message: score takes a chat, score_step several"
        )
    turns = _listed(where, chat, expected)
    if turns and isinstance(turns[0], Step):
        raise InvalidRequest(f"{where} is a list of Step without their task: make a Trajectory(task, steps)")
    return [
        _message(f"{where}.messages.{at}", turn, "a message: a dict with role and content")
        for at, turn in enumerate(turns)
    ]


def _candidates(where: str, candidates: Any) -> Any:
    if isinstance(candidates, wire.Sample):
        return candidates
    if isinstance(candidates, set | frozenset):
        raise InvalidRequest(
            f"{where} must be a list, not a set: index is the place of a candidate, and a set has none"
        )
    listed = _listed(where, candidates, "a list of actions or a Sample")
    return [
        candidate if isinstance(candidate, str) else _message(f"{where}.{at}", candidate, "a text or a message")
        for at, candidate in enumerate(listed)
    ]


def _message(where: str, turn: Any, expected: str) -> Any:
    if isinstance(turn, wire.Message):
        return turn
    if isinstance(turn, Trajectory | State | Step | wire.Body) or not is_object(turn):
        raise _unlike(where, expected, turn)
    return as_fields(where, turn)


def _listed(where: str, value: Any, expected: str) -> list[Any]:
    if isinstance(value, _ONE_THING) or not isinstance(value, Iterable):
        raise _unlike(where, expected, value)
    return list(value)


def _unlike(where: str, expected: str, value: object) -> InvalidRequest:
    return InvalidRequest(
        f"{where} must be {expected}, not {'None' if value is None else f'of type {type(value).__name__}'}"
    )
