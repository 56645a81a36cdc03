"""Items of a request -> trajectories, states and candidates; an error tells which item is wrong."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from agentprm import wire
from agentprm.errors import InvalidRequest, TooLong
from agentprm.messages import to_state, to_trajectory
from agentprm.types import State, Trajectory
from service.generation.policy import Policy, SampledAction
from service.queue.terms import Terms

Item = TypeVar("Item", wire.TrajectoryItem, wire.RankItem)
T = TypeVar("T")


def convert_items(items: Sequence[Item], convert: Callable[[Item], T], max_items: int) -> list[T]:
    """Each item as what the scorer takes; an error tells which item is wrong."""
    if len(items) > max_items:
        raise TooLong(
            f"{len(items)} items in one request, {max_items} are allowed",
            details={"items": len(items), "limit": max_items},
        )
    converted = []
    for index, item in enumerate(items):
        try:
            converted.append(convert(item))
        except InvalidRequest as error:
            raise InvalidRequest(error.message, details={"item": index, **error.details}) from error
        except RecursionError as error:
            raise InvalidRequest("the arguments of a tool call nest too deeply", details={"item": index}) from error
    return converted


def trajectory_of(item: wire.TrajectoryItem) -> Trajectory:
    trajectory = to_trajectory(item)
    _refuse_surrogates(step.action for step in trajectory.steps)
    return trajectory


def proposal_of(item: wire.RankItem) -> tuple[State, list[str]]:
    state, candidates = to_state(item)
    _refuse_surrogates([*(step.action for step in state.steps), *candidates])
    return state, candidates


def _refuse_surrogates(actions: Iterable[str]) -> None:
    """The arguments of a tool call are JSON in a text: an escape in them can hide half a character."""
    try:
        "".join(actions).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the arguments of a tool call hold a lone surrogate, which is no character") from None


def refuse_many_candidates(items: Sequence[wire.RankItem], limit: int) -> None:
    for index, item in enumerate(items):
        count = item.sample.n if item.sample is not None else len(item.candidates or ())
        if count > limit:
            raise TooLong(
                f"{count} candidates in one item, {limit} are allowed",
                details={"item": index, "candidates": count, "limit": limit},
            )


async def sample_actions(
    policy: Policy | None, items: Sequence[wire.RankItem], states: Sequence[State], terms: Terms
) -> tuple[dict[int, list[SampledAction]], float]:
    """The actions of the items that ask for that, by their index, and the seconds it took."""
    asked = {index: (states[index], item.sample) for index, item in enumerate(items) if item.sample is not None}
    if not asked:
        return {}, 0.0
    if policy is None:
        raise InvalidRequest("no policy is set to sample from: send candidates", details={"item": min(asked)})
    sampled, seconds = await policy.sample(list(asked.values()), terms)
    return dict(zip(asked, sampled, strict=True)), seconds
