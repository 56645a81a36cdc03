"""Measures of outcomes and scores with their intervals; knows no model and no environment.

Axes: R training seeds, G goals, E episodes, N steps of any trajectories. Outcomes and promises lie in [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
RESAMPLES = 500  # bootstrap samples of an interval


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def success_interval(outcome_RGE: Floats) -> Interval:
    """Returns the mean outcome of the episodes, a success rate where outcomes are 0 or 1."""
    mean_RG = outcome_RGE.mean(axis=2)
    return bootstrap(lambda run, goals: float(mean_RG[run, goals].mean()), runs=len(mean_RG), goals=mean_RG.shape[1])


def bootstrap(statistic: Callable[[int, Indices], float], *, runs: int, goals: int) -> Interval:
    """Returns the mean of ``statistic(run, goals)`` over the runs, on all goals, and its interval.

    The interval resamples training runs and goals with replacement, so it covers both sources of chance, the first as
    far as a few training runs show it. ``goals`` are indices [G].
    """
    rng = np.random.default_rng(0)
    every_goal = np.arange(goals)
    resampled = [
        np.mean([statistic(run, drawn) for run in rng.integers(0, runs, runs)])
        for drawn in rng.integers(0, goals, (RESAMPLES, goals))
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(np.mean([statistic(run, every_goal) for run in range(runs)])), float(low), float(high))


def step_auc(promises: Floats, outcomes: Floats) -> float:
    """Returns P(promise of a step that led to success > promise of one that led to failure); ties count half.

    ``promises`` and the ``outcomes`` of their trajectories are [N].
    """
    return float(roc_auc_score(outcomes > 0, promises))


def calibration_error(promises: Floats, outcomes: Floats, bins: int = 10) -> float:
    """Returns the expected calibration error of ``promises`` [N] against ``outcomes`` [N].

    It is |mean promise - success rate| over equal-width bins, weighted by the steps in each.
    """
    bin_of = np.minimum((promises * bins).astype(int), bins - 1)
    error = 0.0
    for index in np.unique(bin_of):
        in_bin = bin_of == index
        error += in_bin.mean() * abs(promises[in_bin].mean() - outcomes[in_bin].mean())
    return float(error)


def best_of(scores_GE: Floats, outcomes_GE: Floats, n: int) -> Floats:
    """Returns the outcome of the best-scored trajectory in each group of ``n``, [G, E // n].

    Ties go to the first; episodes that fill no group are left out.
    """
    goals, episodes = scores_GE.shape
    groups = episodes // n
    scores = scores_GE[:, : groups * n].reshape(goals, groups, n)
    outcomes = outcomes_GE[:, : groups * n].reshape(goals, groups, n)
    best = scores.argmax(axis=2)
    return np.take_along_axis(outcomes, best[:, :, None], axis=2)[:, :, 0]
