"""How well the promises of steps tell what became of their trajectories. Axes: N steps, B bins."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training.evaluation.metrics import Floats, Indices
from training.evaluation.resampling import Figure, Resamples, weighted_mean

BINS: Final = 10
POSITIONS: Final = ("first third", "middle third", "last third", "last step")
_ONE_CLASS: Final = "all outcomes are on one side of 0.5"


class Steps(NamedTuple):
    """Steps of many trajectories. An outcome of 0.5 or more is a success where a figure needs two classes.

    Attributes:
        promise_N: in [0, 1].
        outcome_N: that of the step's trajectory, in [0, 1].
        query_N: index of the step's query.
        index_N: the step's place in its trajectory, from 0.
        steps_N: the steps of its trajectory.
    """

    promise_N: Floats
    outcome_N: Floats
    query_N: Indices
    index_N: Floats
    steps_N: Floats

    def where(self, mask_N: NDArray[np.bool_]) -> "Steps":
        """The steps where a mask is true."""
        promise_N, outcome_N, query_N, index_N, steps_N = self
        return Steps(promise_N[mask_N], outcome_N[mask_N], query_N[mask_N], index_N[mask_N], steps_N[mask_N])


@dataclass(frozen=True, slots=True)
class Bin:
    """Steps whose promise lies in one tenth of [0, 1]."""

    steps: int
    promise: float
    outcome: float


def step_auc(steps: Steps, resamples: Resamples) -> Figure:
    """How often a step of a success has a higher promise than one of a failure; 0.5 tells nothing."""
    return _auc(steps.promise_N, steps, resamples)


def auc_by_position(steps: Steps, resamples: Resamples) -> dict[str, Figure]:
    """The step AUC in each third of the trajectories and at their last steps."""
    third_N = np.floor(3 * steps.index_N / steps.steps_N)
    masks = [*(third_N == third for third in range(3)), steps.index_N == steps.steps_N - 1]
    return {
        name: step_auc(steps.where(mask_N), resamples) if mask_N.any() else Figure(None, why="no step is there")
        for name, mask_N in zip(POSITIONS, masks, strict=True)
    }


def floors(steps: Steps, resamples: Resamples) -> dict[str, Figure]:
    """The AUC of what needs no model: where a step is, and how long its trajectory is, each in its better direction."""
    return {
        name: _auc(_better_direction(values_N, steps.outcome_N), steps, resamples)
        for name, values_N in (("step index", steps.index_N), ("number of steps", steps.steps_N))
    }


def ece(steps: Steps, resamples: Resamples) -> Figure:
    """The expected calibration error: how far mean promise and mean outcome of a bin are apart, weighted by steps."""
    bin_N = _bins(steps.promise_N)

    def error(weights_N: Floats) -> float:
        gaps_B = np.bincount(bin_N, weights_N * (steps.promise_N - steps.outcome_N), BINS)
        return float(np.abs(gaps_B).sum() / weights_N.sum())

    return resamples.figure(
        lambda weights_N: error(weights_N) if weights_N.sum() else None, steps.query_N, "no step", centred=True
    )


def brier(steps: Steps, resamples: Resamples) -> Figure:
    """The mean squared difference of promise and outcome."""
    return resamples.figure(weighted_mean((steps.promise_N - steps.outcome_N) ** 2), steps.query_N, "no step")


def reliability(steps: Steps) -> list[Bin]:
    """Mean promise and mean outcome of each bin that has steps."""
    bin_N = _bins(steps.promise_N)
    return [
        Bin(int(mask_N.sum()), float(steps.promise_N[mask_N].mean()), float(steps.outcome_N[mask_N].mean()))
        for mask_N in (bin_N == index for index in range(BINS))
        if mask_N.any()
    ]


def _bins(promise_N: Floats) -> Indices:
    bin_N: Indices = np.minimum((promise_N * BINS).astype(int), BINS - 1)
    return bin_N


def _auc(values_N: Floats, steps: Steps, resamples: Resamples) -> Figure:
    success_N = steps.outcome_N >= 0.5
    level_N = np.unique(values_N, return_inverse=True)[1]
    levels = int(level_N.max(initial=-1)) + 1

    def auc(weights_N: Floats) -> float | None:
        good = np.bincount(level_N, weights_N * success_N, levels)
        bad = np.bincount(level_N, weights_N * ~success_N, levels)
        if not good.sum() or not bad.sum():
            return None
        below = np.cumsum(bad) - bad / 2  # a tie is half a win
        return float((good * below).sum() / (good.sum() * bad.sum()))

    return resamples.figure(auc, steps.query_N, _ONE_CLASS)


def _better_direction(values_N: Floats, outcome_N: Floats) -> Floats:
    success_N = outcome_N >= 0.5
    if len(set(success_N.tolist())) < 2 or roc_auc_score(success_N, values_N) >= 0.5:
        return values_N
    return -values_N
