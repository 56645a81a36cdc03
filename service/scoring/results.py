"""Scores, rankings and timings, and their derivation from raw scores. Knows neither models nor caches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from agentprm.errors import RequestError
from agentprm.types import Message, StepScore, Usage

Promise = Callable[[float], float]
"""Maps a raw score into [0, 1]."""


class Timings(NamedTuple):
    """Seconds of a request by stage. ``cache`` is the lookup in the score cache."""

    tokenize: float
    cache: float
    queue: float
    forward: float


class ItemScores(NamedTuple):
    """Scores of consecutive steps of one item; none if it has an error."""

    steps: list[StepScore]
    usage: Usage
    error: RequestError | None = None


class Scores(NamedTuple):
    """The answer to a request for step scores, in the order of its items."""

    items: list[ItemScores]
    timings: Timings

    @property
    def all_scores(self) -> list[StepScore]:
        return [step for item in self.items for step in item.steps]


@dataclass(frozen=True, slots=True)
class RankedAction:
    """One candidate of a ranking; ``index`` is its position among the caller's candidates."""

    index: int
    score: StepScore


class ItemRanking(NamedTuple):
    """The candidates of one item, best promise first; none if it has an error."""

    ranking: list[RankedAction]
    usage: Usage
    error: RequestError | None = None


class Rankings(NamedTuple):
    """The answer to a request for rankings, in the order of its items."""

    items: list[ItemRanking]
    timings: Timings

    @property
    def all_scores(self) -> list[StepScore]:
        return [action.score for item in self.items for action in item.ranking]


Answered = TypeVar("Answered", Scores, Rankings)


def step_scores(raws: Sequence[float], promise: Promise, apart: Collection[int] = ()) -> list[StepScore]:
    """Derives the scores of consecutive steps. The first of them has no progress.

    Nor have those at the places of ``apart``, whose step before was read in another cut of the history.
    """
    scores: list[StepScore] = []
    for place, raw in enumerate(raws):
        scores.append(_step_score(promise(raw), raw, scores[-1].promise if place and place not in apart else None))
    return scores


def rank(
    candidates: Sequence[str | Message], raws: Mapping[str | Message, float], before: float | None, promise: Promise
) -> list[RankedAction]:
    """Ranks candidates, best promise first.

    Equal promises, where the activation saturates, are ordered by raw score; equal raw scores keep the caller's order.

    Args:
        candidates: the caller's, repetitions included.
        raws: the raw score of each distinct candidate.
        before: the raw score of the step before; None without one.
        promise: maps raw scores into [0, 1].
    """
    previous = None if before is None else promise(before)
    scores = {action: _step_score(promise(raw), raw, previous) for action, raw in raws.items()}
    ranking = [RankedAction(index, scores[action]) for index, action in enumerate(candidates)]
    return sorted(ranking, key=lambda ranked: (-ranked.score.promise, -ranked.score.raw))


def _step_score(promise: float, raw: float, previous: float | None) -> StepScore:
    return StepScore(promise, None if previous is None else promise - previous, raw)
