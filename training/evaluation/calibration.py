"""Maps from raw scores to promises that are fitted on labelled steps. Axes: N steps, Q queries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from agentprm.errors import AgentPRMError
from model_store.format.recipe import Calibration, ScoreRecipe
from training.evaluation.metrics import Floats, Indices
from training.evaluation.resampling import Figure, Resamples
from training.evaluation.steps import Bin, Steps, brier, ece, reliability
from training.rollouts.rollout import Rollout

Method = Literal["platt", "temperature", "isotonic"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
FOLDS: Final = 5
"""Parts of the queries; each is judged by a map that was fitted on the others."""
_NO_PENALTY: Final = 1e6


class Labelled(NamedTuple):
    """Steps with a label: raw scores, labels in [0, 1], and the index of each step's query."""

    raw_N: Floats
    label_N: Floats
    query_N: Indices


@dataclass(frozen=True, slots=True)
class Quality:
    """How promises fit labels, with intervals over queries."""

    ece: Figure
    brier: Figure
    reliability: list[Bin]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A recipe with a fitted map, and the quality before and after, each step judged by a map of other queries.

    ``unseen`` has for each query, by its index, the recipe whose map was fitted without it.
    """

    score: ScoreRecipe
    unseen: tuple[ScoreRecipe, ...]
    before: Quality
    after: Quality
    steps: int
    queries: int


def labelled(rollouts: Sequence[Rollout], raw: Sequence[Sequence[float]]) -> Labelled:
    """The steps of rollouts with their given label, or with the outcome of their rollout where no step has one.

    Raises:
        AgentPRMError: all labels are equal, or there is none.
    """
    query_of = {query: index for index, query in enumerate(_labelled_queries(rollouts))}
    found: list[tuple[float, float, int]] = []
    for rollout, scores in zip(rollouts, raw, strict=True):
        labels = (
            rollout.labels if any(label is not None for label in rollout.labels) else [rollout.outcome] * len(scores)
        )
        found += [
            (score, label, query_of[rollout.query])
            for score, label in zip(scores, labels, strict=True)
            if label is not None
        ]
    if len({label for _, label, _ in found}) < 2:
        raise AgentPRMError(f"{len(found)} labelled steps have fewer than two different labels; nothing can be fitted")
    raw_N, label_N, query_N = np.array(found).T
    return Labelled(raw_N, label_N, query_N.astype(int))


def calibrate(score: ScoreRecipe, steps: Labelled, method: Method, seed: int = 0) -> Calibrated:
    """Fits a map on all steps, and measures it on queries that it was not fitted on.

    Raises:
        AgentPRMError: fewer queries than folds, or a better raw score does not mean a better step.
    """
    queries = int(steps.query_N.max()) + 1
    if queries < FOLDS:
        raise AgentPRMError(f"{queries} queries cannot be parted into {FOLDS} folds; calibrate on more queries")
    fold_Q = np.random.default_rng(seed).permutation(queries) % FOLDS
    after_N = np.empty(len(steps.raw_N))
    maps: list[ScoreRecipe] = []
    for fold in range(FOLDS):
        out_N = fold_Q[steps.query_N] == fold
        maps.append(fit(score, steps.raw_N[~out_N], steps.label_N[~out_N], method))
        after_N[out_N] = _promises(maps[fold], steps.raw_N[out_N])
    resamples = Resamples(queries, seed)
    return Calibrated(
        fit(score, steps.raw_N, steps.label_N, method),
        tuple(maps[fold] for fold in fold_Q),
        _quality(_promises(score, steps.raw_N), steps, resamples),
        _quality(after_N, steps, resamples),
        len(steps.raw_N),
        queries,
    )


def unseen_promises(
    found: Calibrated, rollouts: Sequence[Rollout], raw: Sequence[Sequence[float]]
) -> list[list[float]]:
    """The promise of every step by a map that was fitted without its query, for what ``labelled`` was given."""
    map_of = dict(zip(_labelled_queries(rollouts), found.unseen, strict=True))
    return [
        [map_of.get(rollout.query, found.score).promise(score) for score in scores]
        for rollout, scores in zip(rollouts, raw, strict=True)
    ]


def fit(score: ScoreRecipe, raw_N: Floats, label_N: Floats, method: Method) -> ScoreRecipe:
    """Returns the recipe with a map that is fitted on these steps, in place of the one that it has.

    Raises:
        AgentPRMError: a better raw score does not mean a better step here.
    """
    plain = replace(score, calibration=None, isotonic=())
    fitted = _FITS[method](raw_N, label_N)
    if isinstance(fitted, Calibration):
        return replace(plain, calibration=fitted)
    return replace(plain, isotonic=fitted)


def _platt(raw_N: Floats, label_N: Floats) -> Calibration:
    return _logistic(raw_N, label_N, intercept=True)


def _temperature(raw_N: Floats, label_N: Floats) -> Calibration:
    return _logistic(raw_N, label_N, intercept=False)


def _logistic(raw_N: Floats, label_N: Floats, *, intercept: bool) -> Calibration:
    """The sigmoid of least cross-entropy; a label between 0 and 1 is a share of both."""
    model = LogisticRegression(C=_NO_PENALTY, fit_intercept=intercept)
    both_N = np.repeat([1, 0], len(raw_N))
    model.fit(np.tile(raw_N, 2)[:, None], both_N, sample_weight=np.concatenate([label_N, 1 - label_N]))
    a, b = float(model.coef_[0, 0]), float(model.intercept_[0]) if intercept else 0.0
    if a <= 0:
        raise AgentPRMError("a higher raw score means a worse step here, which no calibration mends")
    return Calibration(a, b)


def _isotonic(raw_N: Floats, label_N: Floats) -> tuple[tuple[float, float], ...]:
    """The rising table of least squares, its ends at the lowest and the highest raw score."""
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw_N, label_N)
    pairs = tuple(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))
    if len(pairs) < 2 or pairs[0][1] == pairs[-1][1]:
        raise AgentPRMError("a higher raw score does not mean a better step here, so no rising table tells anything")
    return pairs


_FITS: Final[dict[Method, Callable[[Floats, Floats], Calibration | tuple[tuple[float, float], ...]]]] = {
    "platt": _platt,
    "temperature": _temperature,
    "isotonic": _isotonic,
}


def _labelled_queries(rollouts: Sequence[Rollout]) -> list[str]:
    """The queries that have a labelled step, in their order."""
    labels = ((rollout.query, (rollout.outcome, *rollout.labels)) for rollout in rollouts)
    return list(dict.fromkeys(query for query, own in labels if any(label is not None for label in own)))


def _promises(score: ScoreRecipe, raw_N: Floats) -> Floats:
    return np.array([score.promise(raw) for raw in raw_N.tolist()])


def _quality(promise_N: Floats, steps: Labelled, resamples: Resamples) -> Quality:
    nothing_N = np.zeros(len(promise_N))
    judged = Steps(promise_N, steps.label_N, steps.query_N, nothing_N, nothing_N)
    return Quality(ece(judged, resamples), brier(judged, resamples), reliability(judged))
