"""Ties the results of a reply to the items that were sent.

A reply that belongs to another request has the right form. Only its ids show whose scores it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from agentprm import wire


@dataclass(frozen=True, slots=True)
class SentItem:
    """An item as it was sent: under ``id``, in place of ``own_id``, the caller's.

    ``size`` is the number of its steps, or of the candidates to rank.
    """

    id: str
    own_id: str | None
    size: int


def mismatch(results: Sequence[wire.Result], sent: Sequence[SentItem]) -> str:
    """Returns why ``results`` cannot be those of the items, or an empty text."""
    if len(results) != len(sent):
        return f"it holds {len(results)} results for {len(sent)} items"
    return next(filter(None, map(_wrong, results, sent)), "")


def with_own_ids(results: Sequence[wire.Result], sent: Sequence[SentItem]) -> list[Any]:
    return [result.model_copy(update={"id": item.own_id}) for result, item in zip(results, sent, strict=True)]


def _wrong(result: wire.Result, item: SentItem) -> str:
    if result.id != item.id:
        return "its items have other ids than those that were sent"
    if isinstance(result, wire.TrajectoryResult) and len(result.steps) != item.size:
        return f"it scores {len(result.steps)} steps where {item.size} were sent"
    if isinstance(result, wire.RankResult):
        return _wrong_ranking(result.ranking, item.size)
    return ""


def _wrong_ranking(ranking: Sequence[wire.RankedCandidate], candidates: int) -> str:
    if sorted(ranked.index for ranked in ranking) != list(range(candidates)):
        return f"its ranking does not hold each of {candidates} candidates once"
    if [ranked.rank for ranked in ranking] != list(range(candidates)):
        return "the ranks of its candidates do not count from 0"
    if any(better.promise < worse.promise for better, worse in pairwise(ranking)):
        return "its ranking does not begin with the best promise"
    return ""
