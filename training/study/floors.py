"""What can be told of an outcome without understanding the text, and what nobody can tell: the bounds of a step AUC.

A model that does not beat the floors has learned to count. The ceiling is the score that has played on from each step.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from training.evaluation.metrics import Floats, Indices, Interval, bootstrap, step_auc
from training.rollouts.rollout import Rollout

_ALLOWED: Final = re.compile(r"Actions allowed: (\d+)")


class _Steps(NamedTuple):
    """All steps of some rollouts, [N] each."""

    counters: Floats  # [N, 3]: index, actions allowed, actions left
    texts: list[str]  # observation and action
    outcomes: Floats
    queries: list[str]
    continued: Floats | None  # mean outcome of the continuations


def step_auc_bounds(train: Sequence[Rollout], held_out: Sequence[Rollout]) -> dict[str, Interval]:
    """Returns the held-out step AUC of scores that read no meaning, and of Monte Carlo continuations if there are any.

    ``step index`` is not fitted; ``counters`` (index, actions allowed and left) and ``words`` of a step (unordered) are
    fitted to the training rollouts. Intervals resample held-out queries.
    """
    known, steps = _steps(train), _steps(held_out)
    counters: Any = HistGradientBoostingClassifier(max_depth=3, random_state=0)
    words: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    scores = {
        "step index": -steps.counters[:, 0],
        "counters": counters.fit(known.counters, known.outcomes > 0).predict_proba(steps.counters)[:, 1],
        "words": words.fit(known.texts, known.outcomes > 0).predict_proba(steps.texts)[:, 1],
    }
    if steps.continued is not None:
        scores["continuations"] = steps.continued
    return {name: _interval(score, steps) for name, score in scores.items()}


def _steps(rollouts: Sequence[Rollout]) -> _Steps:
    counters, texts, outcomes, queries, continued = [], [], [], [], []
    for rollout in rollouts:
        match = _ALLOWED.search(rollout.trajectory.task)
        assert match, "both worlds name the number of actions allowed"
        allowed = int(match[1])
        for index, step in enumerate(rollout.trajectory.steps):
            counters.append((index, allowed, allowed - index - 1))
            texts.append(f"{step.observation} {step.action}")
            outcomes.append(rollout.outcome or 0.0)
            queries.append(rollout.query)
        continued += [np.mean(outcomes_of_step) for outcomes_of_step in rollout.continuations]
    means = np.array(continued) if len(continued) == len(outcomes) else None
    return _Steps(np.array(counters, float), texts, np.array(outcomes), queries, means)


def _interval(scores: Floats, steps: _Steps) -> Interval:
    names = sorted(set(steps.queries))
    queries = np.array(steps.queries)
    rows = [np.flatnonzero(queries == name) for name in names]

    def auc(_run: int, drawn: Indices) -> float:
        chosen = np.concatenate([rows[query] for query in drawn])
        return step_auc(scores[chosen], steps.outcomes[chosen])

    return bootstrap(auc, runs=1, goals=len(names))
