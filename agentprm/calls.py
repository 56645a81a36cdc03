"""Arguments of a client method as one request, the same for the sync and the async client."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Generic, Literal, TypeVar

from agentprm import wire
from agentprm.aggregate import Aggregate
from agentprm.items import RankLike, TrajectoryLike, rank_items, trajectory_items
from agentprm.matching import SentItem

R = TypeVar("R", bound=wire.Reply)
Item = wire.TrajectoryItem | wire.RankItem


class ReadyReply(wire.Reply):
    status: Literal["ready"]


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One request of the contract; ``sent`` are the items whose results its reply must hold."""

    method: Literal["GET", "POST"]
    path: str
    reply: type[R]
    body: bytes | None = None
    sent: tuple[SentItem, ...] = ()
    trajectory_id: str | None = None


MODELS: Final = Call("GET", "/models", wire.ModelsReply)
READY: Final = Call("GET", "/ready", ReadyReply)


def score_step(items: Iterable[TrajectoryLike], model: str | None) -> Call[wire.ScoreStepReply]:
    request = wire.validate(wire.ScoreRequest, {"model": model, "items": trajectory_items(items)})
    return _post("/score_step", wire.ScoreStepReply, request)


def score_trajectory(
    items: Iterable[TrajectoryLike], model: str | None, aggregate: Aggregate | None
) -> Call[wire.ScoreTrajectoryReply]:
    fields = {"model": model, "aggregate": aggregate, "items": trajectory_items(items)}
    request = wire.validate(wire.ScoreTrajectoryRequest, fields)
    return _post("/score_trajectory", wire.ScoreTrajectoryReply, request)


def rank_actions(items: Iterable[RankLike], model: str | None) -> Call[wire.RankActionsReply]:
    request = wire.validate(wire.RankRequest, {"model": model, "items": rank_items(items)})
    return _post("/rank_actions", wire.RankActionsReply, request)


def _post(path: str, reply: type[R], request: wire.ScoreRequest | wire.RankRequest) -> Call[R]:
    """The call of a request, each item with an id of this client.

    The ids are a hash of the whole request and a position. A reply of another request therefore shows, and equal
    requests keep equal bodies, for caches and recorded tests.
    """
    digest = blake2b(path.encode() + wire.encode(request), digest_size=8).hexdigest()
    items: Sequence[Item] = request.items
    sent = tuple(SentItem(f"{digest}-{index}", item.id, _size(item)) for index, item in enumerate(items))
    named = [item.model_copy(update={"id": as_sent.id}) for item, as_sent in zip(items, sent, strict=True)]
    body = wire.encode(request.model_copy(update={"items": named}))
    return Call("POST", path, reply, body, sent, _trajectory_id(items))


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
