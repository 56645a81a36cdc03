"""Arguments of a client method as one request, the same for the sync and the async client."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from agentprm import wire
from agentprm.aggregate import Aggregate
from agentprm.errors import InvalidRequest
from agentprm.items import RankLike, TrajectoryLike, rank_items, trajectory_items
from agentprm.matching import SentItem
from agentprm.outcomes import Outcomes, to_outcomes
from agentprm.rollouts import read_fields, write_line
from agentprm.types import Overflow

R = TypeVar("R")
Item = wire.TrajectoryItem | wire.RankItem


class ReadyReply(wire.Reply):
    status: Literal["ready"]


class Defaults(NamedTuple):
    """What a client says once for all its calls; an item that names its own ``overflow`` keeps it."""

    model: str | None
    overflow: Overflow


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One request of the contract; ``sent`` are the items whose results its reply must hold.

    ``reply`` is the form of the reply on the wire, which ``finish`` turns into what the caller gets.
    """

    method: Literal["GET", "POST"]
    path: str
    reply: type[wire.Reply]
    finish: Callable[[Any], R]
    body: bytes | None = None
    sent: tuple[SentItem, ...] = ()
    trajectory_id: str | None = None


def _as_it_is(reply: Any) -> Any:
    return reply


MODELS: Final[Call[wire.ModelsReply]] = Call("GET", "/models", wire.ModelsReply, _as_it_is)
READY: Final[Call[ReadyReply]] = Call("GET", "/ready", ReadyReply, _as_it_is)


def score_step(
    items: Iterable[TrajectoryLike], defaults: Defaults, on_error: wire.OnError
) -> Call[wire.ScoreStepReply | Outcomes[wire.StepResult]]:
    listed = trajectory_items(items, defaults.overflow)
    fields = {"model": defaults.model, "on_error": on_error, "items": listed}
    request = wire.validate(wire.ScoreRequest, fields)
    return _post("/score_step", request, wire.ScoreStepReply, wire.ScoreStepOutcomes)


def score_trajectory(
    items: Iterable[TrajectoryLike], defaults: Defaults, aggregate: Aggregate | None, on_error: wire.OnError
) -> Call[wire.ScoreTrajectoryReply | Outcomes[wire.TrajectoryResult]]:
    listed = trajectory_items(items, defaults.overflow)
    fields = {"model": defaults.model, "on_error": on_error, "aggregate": aggregate, "items": listed}
    request = wire.validate(wire.ScoreTrajectoryRequest, fields)
    return _post("/score_trajectory", request, wire.ScoreTrajectoryReply, wire.ScoreTrajectoryOutcomes)


def rank_actions(
    items: Iterable[RankLike], defaults: Defaults, on_error: wire.OnError
) -> Call[wire.RankActionsReply | Outcomes[wire.RankResult]]:
    listed = rank_items(items, defaults.overflow)
    fields = {"model": defaults.model, "on_error": on_error, "items": listed}
    request = wire.validate(wire.RankRequest, fields)
    return _post("/rank_actions", request, wire.RankActionsReply, wire.RankActionsOutcomes)


def report_outcome(
    trajectory_id: str,
    outcome: float | None,
    *,
    truncated: bool,
    query: str | None,
    action: str | Mapping[str, Any] | None,
) -> Call[wire.OutcomeReply]:
    """What became of a trajectory.

    Raises:
        InvalidRequest: an outcome outside [0, 1], none though not truncated, or an empty id.
    """
    fields = {"trajectory_id": trajectory_id, "outcome": outcome, "query": query, "action": action}
    line = read_fields({name: value for name, value in fields.items() if value is not None} | {"truncated": truncated})
    return Call("POST", "/outcomes", wire.OutcomeReply, _as_it_is, write_line(line))


def _post(
    path: str, request: wire.ScoreRequest | wire.RankRequest, whole: type[wire.Reply], each: type[wire.Reply]
) -> Call[Any]:
    """The call of a request, each item with an id of this client. Items that break the contract are not sent.

    The ids are a hash of the whole request and a position. A reply of another request therefore shows, and equal
    requests keep equal bodies, for caches and recorded tests.

    Raises:
        InvalidRequest: every item breaks the contract.
    """
    places, refused = _sorted_out(request.items)
    items = list(places.values())
    unnamed = wire.encode(request.model_copy(update={"items": items}))
    digest = blake2b(path.encode() + unnamed, digest_size=8).hexdigest()
    sent = tuple(SentItem(f"{digest}-{at}", item.id, _size(item)) for at, item in enumerate(items))
    named = [item.model_copy(update={"id": as_sent.id}) for item, as_sent in zip(items, sent, strict=True)]
    body = wire.encode(request.model_copy(update={"items": named}))
    if request.on_error == "request":
        return Call("POST", path, whole, _as_it_is, body, sent, _trajectory_id(items))

    def finish(reply: Any) -> Outcomes[Any]:
        return to_outcomes(reply.model, reply.results, list(places), refused)

    return Call("POST", path, each, finish, body, sent, _trajectory_id(items))


def _sorted_out(items: Sequence[Item | wire.RefusedItem]) -> tuple[dict[int, Item], dict[int, InvalidRequest]]:
    """Items to send and errors of the others, by their places."""
    places = {at: item for at, item in enumerate(items) if not isinstance(item, wire.RefusedItem)}
    refused = {at: item.error(at, ("items",)) for at, item in enumerate(items) if isinstance(item, wire.RefusedItem)}
    if not places:
        raise refused[0]
    return places, refused


def _size(item: Item) -> int:
    """Number of steps of a trajectory, or of candidates to rank."""
    if isinstance(item, wire.RankItem):
        return item.sample.n if item.sample is not None else len(item.candidates or ())
    if item.messages is not None:
        return sum(message.role == "assistant" for message in item.messages)
    return len(item.steps or ())


def _trajectory_id(items: Sequence[Item]) -> str | None:
    """A hash of how all items begin, by which a proxy keeps a trajectory on the replica that has its prefix.

    None if they begin differently.
    """
    beginnings = {_beginning(item) for item in items}
    return blake2b(beginnings.pop().encode(), digest_size=8).hexdigest() if len(beginnings) == 1 else None


def _beginning(item: Item) -> str:
    """The task; of a chat everything up to the first user turn, which all its steps share."""
    if item.task is not None:
        return item.task
    beginning = []
    for message in item.messages or ():
        beginning.append(f"{message.role}: {message.content}")
        if message.role == "user":
            break
    return "\n".join(beginning)
