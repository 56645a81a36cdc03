"""What is answered: scores and rankings, where their time went, and how raw scores become them.

Shared by all that can score; knows neither models nor caches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from agentprm.types import StepScore, Usage

Promise = Callable[[float], float]
"""Maps a raw score into [0, 1]."""


class Timings(NamedTuple):
    """Where the seconds of a request went."""

    tokenize: float
    cache: float
    queue: float
    forward: float


class ItemScores(NamedTuple):
    steps: list[StepScore]
    usage: Usage


class Scores(NamedTuple):
    items: list[ItemScores]
    timings: Timings

    @property
    def every(self) -> list[StepScore]:
        return [step for item in self.items for step in item.steps]


@dataclass(frozen=True, slots=True)
class RankedAction:
    """``index`` is the action's position among the candidates."""

    index: int
    score: StepScore


class ItemRanking(NamedTuple):
    """Best first."""

    ranking: list[RankedAction]
    usage: Usage


class Rankings(NamedTuple):
    items: list[ItemRanking]
    timings: Timings

    @property
    def every(self) -> list[StepScore]:
        return [action.score for item in self.items for action in item.ranking]


Answered = TypeVar("Answered", Scores, Rankings)


def step_scores(raws: Sequence[float], promise: Promise) -> list[StepScore]:
    """Scores of consecutive steps; the first of them counts as without a predecessor."""
    scores: list[StepScore] = []
    for raw in raws:
        scores.append(_step_score(promise(raw), raw, scores[-1].promise if scores else None))
    return scores


def rank(
    candidates: Sequence[str], raws: Mapping[str, float], before: float | None, promise: Promise
) -> list[RankedAction]:
    """Best promise first; equal promises, where the activation saturates, by raw; equal raws keep the caller's order.

    ``raws`` has each distinct candidate; ``before`` is the raw score of the step before, None without one.
    """
    previous = None if before is None else promise(before)
    scores = {action: _step_score(promise(raw), raw, previous) for action, raw in raws.items()}
    ranking = [RankedAction(index, scores[action]) for index, action in enumerate(candidates)]
    return sorted(ranking, key=lambda ranked: (-ranked.score.promise, -ranked.score.raw))


def _step_score(promise: float, raw: float, previous: float | None) -> StepScore:
    return StepScore(promise, None if previous is None else promise - previous, raw)
