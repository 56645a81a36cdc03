"""Figures with bootstrap intervals over queries, because attempts at one query are not independent.

Axes: N steps, Q queries, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.evaluation.metrics import Floats, Indices

RESAMPLES: Final = 400


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval over queries; without a value, ``why`` says what was missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"- ({self.why})"
        return f"{self.value:.3f}" + ("" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]")


class Resamples:
    """How often each query is drawn in each resample, [R, Q]; ``seed`` decides."""

    def __init__(self, queries: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.draws_RQ = (
            rng.multinomial(queries, np.full(queries, 1 / queries), RESAMPLES) if queries else np.empty((0, 0))
        )

    def figure(
        self, statistic: Callable[[Floats], float | None], query_N: Indices, why: str, *, centred: bool = False
    ) -> Figure:
        """The statistic of items that count once, and its interval from items that count as often as their query.

        ``statistic`` takes the weights of all items [N] and returns None where it is not defined; ``why`` tells that.
        ``centred`` is for one that grows when items repeat, as a mean of absolute gaps does: the resamples are shifted
        to have the statistic as their mean, within [0, 1].
        """
        value = statistic(np.ones(len(query_N)))
        if value is None:
            return Figure(None, why=why)
        found = [each for draws_Q in self.draws_RQ if (each := statistic(draws_Q[query_N].astype(float))) is not None]
        if len(set(query_N.tolist())) < 2 or len(found) < RESAMPLES / 2:
            return Figure(value, why="too few queries for an interval")
        shift = value - float(np.mean(found)) if centred else 0.0
        low, high = np.clip(np.quantile(found, [0.025, 0.975]) + shift, 0, 1)
        return Figure(value, float(low), float(high))


def weighted_mean(values_N: Floats) -> Callable[[Floats], float | None]:
    """The mean of values as a statistic of their weights."""
    return lambda weights_N: float(np.average(values_N, weights=weights_N)) if weights_N.sum() else None
