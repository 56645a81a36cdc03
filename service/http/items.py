"""Converts the items of a request to trajectories, states and candidates."""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from agentprm import wire
from agentprm.errors import InvalidRequest, TooLong
from agentprm.messages import to_history, to_proposal, to_steps
from agentprm.types import Conversation, Message, State, Trajectory
from service.generation.policy import Policy, SampledAction
from service.http.item_sizes import refuse_large_items
from service.queue.terms import Terms

Item = TypeVar("Item", wire.TrajectoryItem, wire.RankItem)
T = TypeVar("T")


def convert_items(
    items: Sequence[Item], convert: Callable[[Item], T], *, max_items: int, max_characters: int
) -> list[T]:
    """Converts each item to what the scorer takes.

    Raises:
        TooLong: there are more than ``max_items``, or an item has more than ``max_characters``.
        InvalidRequest: an item cannot be converted; the details have its index.
    """
    if len(items) > max_items:
        raise TooLong(
            f"{len(items)} items in one request, {max_items} are allowed",
            details={"items": len(items), "limit": max_items},
        )
    refuse_large_items(items, max_characters)
    converted = []
    for index, item in enumerate(items):
        try:
            converted.append(convert(item))
        except InvalidRequest as error:
            raise InvalidRequest(error.message, details={"item": index, **error.details}) from error
        except RecursionError as error:
            raise InvalidRequest("the arguments of a tool call nest too deeply", details={"item": index}) from error
    return converted


def history_of(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    history = to_history(item)
    _refuse_surrogates(history)
    return history


def steps_of(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    history = to_steps(item)
    _refuse_surrogates(history)
    return history


def proposal_of(item: wire.RankItem) -> tuple[State | Conversation, list[str | Message]]:
    state, candidates = to_proposal(item)
    _refuse_surrogates(state, *candidates)
    return state, candidates


def _refuse_surrogates(*parts: Trajectory | State | Conversation | Message | str) -> None:
    """Raises InvalidRequest for a lone surrogate, which an escape in a tool call's JSON arguments can hide.

    Everything else was checked by the bodies.
    """
    for message in parts:
        if isinstance(message, Conversation):
            _refuse_surrogates(*message.messages)
        elif isinstance(message, Message):
            for call in message.tool_calls:
                _refuse_escaped_surrogate(call.arguments)


def _refuse_escaped_surrogate(arguments: str) -> None:
    if "\\u" in arguments:
        try:
            json.dumps(json.loads(arguments), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InvalidRequest("the arguments of a tool call hold a lone surrogate, which is no character") from None
        except ValueError:
            return  # no JSON: kept as written


def refuse_too_many_candidates(items: Sequence[wire.RankItem], limit: int) -> None:
    for index, item in enumerate(items):
        count = item.sample.n if item.sample is not None else len(item.candidates or ())
        if count > limit:
            raise TooLong(
                f"{count} candidates in one item, {limit} are allowed",
                details={"item": index, "candidates": count, "limit": limit},
            )


async def sample_actions(
    policy: Policy | None, items: Sequence[wire.RankItem], states: Sequence[State | Conversation], terms: Terms
) -> tuple[dict[int, list[SampledAction]], float]:
    """Samples actions for the items that ask for them. Returns the actions by item index, and the seconds it took."""
    samples: dict[int, tuple[State | Conversation, wire.Sample]] = {
        index: (states[index], item.sample) for index, item in enumerate(items) if item.sample is not None
    }
    if not samples:
        return {}, 0.0
    if policy is None:
        raise InvalidRequest("no policy is set to sample from: send candidates", details={"item": min(samples)})
    sampled, seconds = await policy.sample(list(samples.values()), terms)
    return dict(zip(samples, sampled, strict=True)), seconds
