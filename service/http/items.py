"""Converts the items of a request to trajectories, states and candidates."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from agentprm import wire
from agentprm.errors import InvalidRequest, RequestError, TooLong
from agentprm.messages import to_history, to_proposal, to_steps
from agentprm.types import Conversation, Message, State, Trajectory
from service.http.item_sizes import refuse_costly_arguments, refuse_large_item

Item = TypeVar("Item", wire.TrajectoryItem, wire.RankItem)
A = TypeVar("A")
T = TypeVar("T")
Proposal = tuple[State | Conversation, list[str | Message]]
"""A state and the actions proposed in it."""


class ItemLimits(NamedTuple):
    """Most items of a request, most characters of an item, and most candidates of one to rank."""

    items: int
    characters: int
    candidates: int


def convert_items(
    items: Sequence[Item | wire.RefusedItem], convert: Callable[[Item], T], limits: ItemLimits, *, per_item: bool
) -> list[T | RequestError]:
    """Converts each item to what the scorer takes; with ``per_item`` the error of an item takes its place.

    Raises:
        TooLong: there are too many items; unless ``per_item`` also if an item is too large.
        InvalidRequest: unless ``per_item``: an item cannot be converted; the details have its index.
    """
    if len(items) > limits.items:
        raise TooLong(
            f"{len(items)} items in one request, {limits.items} are allowed",
            details={"items": len(items), "limit": limits.items},
        )
    # Every item is measured before the first is converted.
    measured = _each(items, partial(_measured, limits), per_item=per_item)
    refuse_costly_arguments([item for item in measured if not isinstance(item, RequestError)])
    return _each(measured, partial(_converted, convert), per_item=per_item)


def _each(
    items: Iterable[A | RequestError], function: Callable[[int, A], T], *, per_item: bool
) -> list[T | RequestError]:
    """Applies a function to the index and each item without an error. ``per_item``: returns its errors in place."""
    results: list[T | RequestError] = []
    for index, item in enumerate(items):
        try:
            results.append(item if isinstance(item, RequestError) else function(index, item))
        except RequestError as error:
            if not per_item:
                raise
            results.append(error)
    return results


def _measured(limits: ItemLimits, index: int, item: Item | wire.RefusedItem) -> Item:
    if isinstance(item, wire.RefusedItem):
        raise item.error(index)
    refuse_large_item(index, item, limits.characters)
    if isinstance(item, wire.RankItem):
        _refuse_too_many_candidates(index, item, limits.candidates)
    return item


def _converted(convert: Callable[[Item], T], index: int, item: Item) -> T:
    try:
        return convert(item)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, details={"item": index, **error.details}) from error
    except RecursionError as error:
        raise InvalidRequest("the arguments of a tool call nest too deeply", details={"item": index}) from error


def history_of(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    history = to_history(item)
    _refuse_surrogates(history)
    return history


def steps_of(item: wire.TrajectoryItem) -> Trajectory | Conversation:
    history = to_steps(item)
    _refuse_surrogates(history)
    return history


def proposal_of(item: wire.RankItem) -> Proposal:
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


def _refuse_too_many_candidates(index: int, item: wire.RankItem, limit: int) -> None:
    count = item.sample.n if item.sample is not None else len(item.candidates or ())
    if count > limit:
        raise TooLong(
            f"{count} candidates in one item, {limit} are allowed",
            details={"item": index, "candidates": count, "limit": limit},
        )
