"""Best of N: the outcome of the attempt that a score chooses among N attempts at one query.

Every figure is the exact mean over all subsets of N attempts, and over ways to break ties; nothing is sampled.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Final, NamedTuple

import numpy as np

from training.evaluation.resampling import Figure, Resamples, weighted_mean

SIZES: Final = (1, 2, 4, 8, 16)
MOST_SUBSETS: Final = 2_000
"""Subsets of a query's attempts that a majority vote looks at; beyond, it is left out."""


class Attempt(NamedTuple):
    """One attempt at a query: its outcome, the scores of its last step, and what it did last."""

    outcome: float
    promise: float
    orm: float | None
    last_action: str


@dataclass(frozen=True, slots=True)
class BestOf:
    """Mean outcomes of choosing among ``n`` attempts, over the queries that have as many.

    ``random`` is what any constant score gives. ``majority`` chooses the most frequent last action; ``oracle`` knows
    the outcomes. ``orm`` is there if the scores of an outcome model were given.
    """

    n: int
    queries: int
    promise: Figure
    random: Figure
    majority: Figure
    oracle: Figure
    orm: Figure | None


def best_of_n(queries: Sequence[Sequence[Attempt]], seed: int) -> list[BestOf]:
    """Returns a row for each size that at least one query has attempts for; none if every query has one attempt."""
    most = max(map(len, queries), default=0)
    return [_row(size, [query for query in queries if len(query) >= size], seed) for size in SIZES if 1 < most >= size]


def _row(size: int, queries: Sequence[Sequence[Attempt]], seed: int) -> BestOf:
    resamples = Resamples(len(queries), seed)
    index_Q = np.arange(len(queries))

    def over(values: list[float]) -> Figure:
        return resamples.figure(weighted_mean(np.array(values)), index_Q, "no query")

    counted = all(comb(len(query), size) <= MOST_SUBSETS for query in queries)
    has_orm = all(attempt.orm is not None for query in queries for attempt in query)
    return BestOf(
        size,
        len(queries),
        promise=over([chosen_by([a.promise for a in query], _outcomes(query), size) for query in queries]),
        random=over([float(np.mean(_outcomes(query))) for query in queries]),
        majority=over([majority(query, size) for query in queries])
        if counted
        else Figure(None, why="too many subsets to count votes in"),
        oracle=over([chosen_by(_outcomes(query), _outcomes(query), size) for query in queries]),
        orm=over([chosen_by([a.orm or 0.0 for a in query], _outcomes(query), size) for query in queries])
        if has_orm
        else None,
    )


def chosen_by(scores: Sequence[float], outcomes: Sequence[float], size: int) -> float:
    """Returns the mean outcome of the highest-scored of ``size`` attempts, over all subsets.

    An attempt with ``k`` below it is the highest of C(k, size - 1) subsets. Attempts of one score share what they get.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__)
    total = 0.0
    for below, index in enumerate(order):
        tied = [outcomes[other] for other in order if scores[other] == scores[index]]
        total += comb(below, size - 1) * sum(tied) / len(tied)
    return total / comb(len(scores), size)


def majority(query: Sequence[Attempt], size: int) -> float:
    """Returns the mean outcome of an attempt whose last action is the most frequent of ``size``, over all subsets."""
    return float(np.mean([_vote(subset) for subset in combinations(query, size)]))


def _vote(subset: Sequence[Attempt]) -> float:
    votes = Counter(attempt.last_action for attempt in subset)
    most = max(votes.values())
    return float(np.mean([attempt.outcome for attempt in subset if votes[attempt.last_action] == most]))


def _outcomes(query: Sequence[Attempt]) -> list[float]:
    return [attempt.outcome for attempt in query]
