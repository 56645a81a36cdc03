"""What the evaluation reports, from arrays of outcomes and scores; knows no model and no environment.

Axes: R training seeds, G goals, E episodes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def success_interval(outcome_RGE: Floats, seed: int = 0) -> Interval:
    """Mean outcome; the interval resamples training seeds and goals, so it covers both sources of luck."""
    rng = np.random.default_rng(seed)
    mean_RG = outcome_RGE.mean(axis=2)
    runs, goals = mean_RG.shape
    run_indices = rng.integers(0, runs, (RESAMPLES, runs))
    goal_indices = rng.integers(0, goals, (RESAMPLES, goals))
    means = mean_RG[run_indices[:, :, None], goal_indices[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(mean_RG.mean()), float(low), float(high))


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
