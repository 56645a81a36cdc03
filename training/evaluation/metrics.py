"""What the evaluation reports, from arrays of outcomes and scores; knows no model and no environment.

Axes: R training seeds, G goals, E episodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
RESAMPLES = 500


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def success_interval(outcome_RGE: Floats) -> Interval:
    """Mean outcome of the episodes."""
    mean_RG = outcome_RGE.mean(axis=2)
    return bootstrap(lambda run, goals: float(mean_RG[run, goals].mean()), runs=len(mean_RG), goals=mean_RG.shape[1])


def bootstrap(statistic: Callable[[int, Indices], float], *, runs: int, goals: int) -> Interval:
    """``statistic(run, goals)`` averaged over runs, on all goals; the interval resamples training runs and goals.

    So it covers both sources of luck, as far as a few training runs can show the first.
    """
    rng = np.random.default_rng(0)
    whole = np.arange(goals)
    resampled = [
        np.mean([statistic(run, chosen) for run in rng.integers(0, runs, runs)])
        for chosen in rng.integers(0, goals, (RESAMPLES, goals))
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(np.mean([statistic(run, whole) for run in range(runs)])), float(low), float(high))


def step_auc(promises: Floats, outcomes: Floats) -> float:
    """How well a step's promise tells its trajectory's final success: P(promise of a success > of a failure)."""
    return float(roc_auc_score(outcomes > 0, promises))


def calibration_error(promises: Floats, outcomes: Floats, bins: int = 10) -> float:
    """Expected calibration error: |mean promise - success rate| over equal-width bins, weighted by their size."""
    bin_of = np.minimum((promises * bins).astype(int), bins - 1)
    error = 0.0
    for index in np.unique(bin_of):
        inside = bin_of == index
        error += inside.mean() * abs(promises[inside].mean() - outcomes[inside].mean())
    return float(error)


def best_of(scores_GE: Floats, outcomes_GE: Floats, n: int) -> Floats:
    """Outcome of the best-scored trajectory in each group of ``n``, [G, E // n]; ties go to the first."""
    goals, episodes = scores_GE.shape
    groups = episodes // n
    scores = scores_GE[:, : groups * n].reshape(goals, groups, n)
    outcomes = outcomes_GE[:, : groups * n].reshape(goals, groups, n)
    picked = scores.argmax(axis=2)
    return np.take_along_axis(outcomes, picked[:, :, None], axis=2)[:, :, 0]
