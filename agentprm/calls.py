"""Arguments of a client method as one request, the same for the sync and the async client."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Generic, Literal, TypeVar

from agentprm import wire
from agentprm.types import State, Trajectory

ChatMessage = Mapping[str, Any] | wire.Message
"""One turn in OpenAI chat form."""
Chat = Sequence[ChatMessage]
TrajectoryLike = Trajectory | Chat | wire.TrajectoryItem
Candidate = str | ChatMessage
"""A proposed action: text, or an assistant's turn."""
Candidates = Sequence[Candidate] | wire.Sample
"""Proposed actions, or how the service is to sample them."""
RankLike = tuple[State | Chat, Candidates] | wire.RankItem

R = TypeVar("R", bound=wire.Reply)


class ReadyReply(wire.Reply):
    status: Literal["ready"]


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One request of the contract; ``items`` is how many results its reply must hold."""

    method: Literal["GET", "POST"]
    path: str
    reply: type[R]
    body: bytes | None = None
    items: int = 0
    trajectory_id: str | None = None


MODELS: Final = Call("GET", "/models", wire.ModelsReply)
READY: Final = Call("GET", "/ready", ReadyReply)


def score_step(items: Iterable[TrajectoryLike], model: str | None) -> Call[wire.ScoreStepReply]:
    bodies = [_trajectory(item) for item in items]
    body = wire.encode(wire.ScoreRequest, {"model": model, "items": bodies})
    return Call("POST", "/score_step", wire.ScoreStepReply, body, len(bodies), _trajectory_id(bodies))


def score_trajectory(items: Iterable[TrajectoryLike], model: str | None) -> Call[wire.ScoreTrajectoryReply]:
    bodies = [_trajectory(item) for item in items]
    body = wire.encode(wire.ScoreRequest, {"model": model, "items": bodies})
    return Call("POST", "/score_trajectory", wire.ScoreTrajectoryReply, body, len(bodies), _trajectory_id(bodies))


def rank_actions(items: Iterable[RankLike], model: str | None) -> Call[wire.RankActionsReply]:
    bodies = [_proposal(item) for item in items]
    body = wire.encode(wire.RankRequest, {"model": model, "items": bodies})
    return Call("POST", "/rank_actions", wire.RankActionsReply, body, len(bodies), _trajectory_id(bodies))


def _trajectory(item: TrajectoryLike) -> wire.TrajectoryItem | dict[str, Any]:
    if isinstance(item, wire.TrajectoryItem):
        return item
    return _history(item)


def _proposal(item: RankLike) -> wire.RankItem | dict[str, Any]:
    if isinstance(item, wire.RankItem):
        return item
    state, candidates = item
    current = {"observation": state.observation} if isinstance(state, State) else {}
    proposed = "sample" if isinstance(candidates, wire.Sample) else "candidates"
    return {**_history(state), **current, proposed: candidates}


def _history(history: Trajectory | State | Chat) -> dict[str, Any]:
    if not isinstance(history, Trajectory | State):
        return {"messages": history}
    steps = [{"observation": step.observation, "action": step.action} for step in history.steps]
    return {"task": history.task, "steps": steps}


def _trajectory_id(items: Sequence[wire.TrajectoryItem | wire.RankItem | dict[str, Any]]) -> str | None:
    """A hash of how all items begin, by which a proxy keeps a trajectory on the replica that has its prefix.

    None if they begin differently.
    """
    beginnings = {_beginning(item) for item in items}
    return blake2b(beginnings.pop().encode(), digest_size=8).hexdigest() if len(beginnings) == 1 else None


def _beginning(item: wire.TrajectoryItem | wire.RankItem | dict[str, Any]) -> str:
    """The task; of a chat everything up to the first user turn, which all its steps share."""
    fields: dict[str, Any] = item if isinstance(item, dict) else {"task": item.task, "messages": item.messages}
    if fields.get("task") is not None:
        return str(fields["task"])
    beginning = []
    for turn in fields["messages"]:
        message = turn if isinstance(turn, wire.Message) else wire.Message.model_validate(turn)
        beginning.append(f"{message.role}: {message.content}")
        if message.role == "user":
            break
    return "\n".join(beginning)
