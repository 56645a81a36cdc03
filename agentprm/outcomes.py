"""The answers to items that may fail alone: a result or an error for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agentprm import wire
from agentprm.errors import BY_CODE, RequestError

Scored = TypeVar("Scored", bound=wire.Result)


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[Scored]):
    """The reply to a call with ``on_error="item"``.

    ``results[i]`` is the result of item i, or the error it would have raised in a call of its own. ``details["item"]``
    of an error is i.
    """

    model: wire.ModelIdentity
    results: list[Scored | RequestError]


def to_outcomes(
    model: wire.ModelIdentity,
    results: Sequence[Scored | wire.ItemError],
    places: Sequence[int],
    refused: Mapping[int, RequestError],
) -> Outcomes[Scored]:
    """Puts results and errors into the order of the items.

    Args:
        model: the model that answered.
        results: those of the items that were sent.
        places: their places among all items.
        refused: the errors of items that were not sent, by their places.
    """
    outcomes: dict[int, Scored | RequestError] = dict(refused)
    for place, result in zip(places, results, strict=True):
        outcomes[place] = _error(result.error, place) if isinstance(result, wire.ItemError) else result
    return Outcomes(model, [outcomes[place] for place in sorted(outcomes)])


def _error(error: wire.ErrorDetail, place: int) -> RequestError:
    """The error of an item. A service that is newer than this client may have other codes."""
    return BY_CODE.get(error.code, RequestError)(error.message, details={**error.details, "item": place})
