"""What is answered: scores and rankings, where their time went, and how raw scores become them.

Shared by all that can score; knows neither models nor caches.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, TypeVar

from agentprm.errors import DeadlineExceeded
from agentprm.types import StepScore, Usage
from service.fair_queue import Priority

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


class Terms(NamedTuple):
    """For whom a request is scored, how soon, and until when it is of use (loop time)."""

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    arrived: float = 0.0
    deadline: float | None = None

    def within(self, milliseconds: int | None) -> "Terms":
        """No later than so long after it arrived."""
        if milliseconds is None:
            return self
        deadline = self.arrived + milliseconds / 1000
        return self._replace(deadline=deadline if self.deadline is None else min(self.deadline, deadline))


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


class Stages:
    """Which one a request is in, and the seconds of those before."""

    def __init__(self, first: str) -> None:
        self.now = first
        self.seconds: dict[str, float] = {}
        self._entered = perf_counter()

    def enter(self, stage: str) -> None:
        entered = perf_counter()
        self.seconds[self.now] = entered - self._entered
        self.now, self._entered = stage, entered


@asynccontextmanager
async def until(deadline: float | None, first: str = "tokenize") -> AsyncIterator[Stages]:
    """Cancels what runs inside at ``deadline`` (loop time), and tells in which stage that was."""
    stages = Stages(first)
    try:
        async with asyncio.timeout_at(deadline):
            yield stages
    except TimeoutError as error:
        raise DeadlineExceeded(
            "the deadline passed before the scores were ready", details={"stage": stages.now}
        ) from error
