"""Figures on held-out rollouts, against scikit-learn, brute force and what must hold of any figures."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from agentprm.types import Conversation, Message, Step, Trajectory
from training.evaluation.best_of_n import Attempt, chosen_by, majority
from training.evaluation.held_out import as_text, measure
from training.rollouts.rollout import Rollout

shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def rollout(query: str, outcome: float | None, steps: int, last: str = "done") -> Rollout:
    actions = [*(f"action {number}" for number in range(steps - 1)), last]
    history = Trajectory(f"task of {query}", tuple(Step("", action) for action in actions))
    return Rollout(history, outcome, truncated=outcome is None, query=query)


def some(queries: int = 12, attempts: int = 4, seed: int = 0) -> tuple[list[Rollout], list[list[float]]]:
    """Rollouts of 1 to 5 steps whose promises tell a little of their outcomes."""
    rng = np.random.default_rng(seed)
    rollouts = [
        rollout(f"q{query}", float(rng.random() < 0.4), int(rng.integers(1, 6)))
        for query in range(queries)
        for _ in range(attempts)
    ]
    promises = [np.clip(rng.normal(0.4 + 0.2 * (one.outcome or 0), 0.2, one.steps), 0, 1).tolist() for one in rollouts]
    return rollouts, promises


def test_step_figures_are_those_of_scikit_learn() -> None:
    rollouts, promises = some()
    outcomes = [one.outcome for one, own in zip(rollouts, promises, strict=True) for _ in own]
    flat = [promise for own in promises for promise in own]
    figures = measure(rollouts, promises)
    assert figures.step_auc.value == pytest.approx(roc_auc_score(outcomes, flat))
    assert figures.brier.value == pytest.approx(brier_score_loss(outcomes, flat))
    last = roc_auc_score([one.outcome for one in rollouts], [own[-1] for own in promises])
    assert figures.auc_by_position["last step"].value == pytest.approx(last)
    assert sum(each.steps for each in figures.reliability) == figures.steps == len(flat)
    gaps = sum(each.steps * abs(each.promise - each.outcome) for each in figures.reliability)
    assert figures.ece.value == pytest.approx(gaps / len(flat))


def test_an_interval_holds_its_figure_and_is_wider_where_attempts_are_of_fewer_queries() -> None:
    rollouts, promises = some(queries=40, attempts=2)
    many = measure(rollouts, promises).brier
    merged = [
        Rollout(one.history, one.outcome, one.truncated, f"q{number // 20}") for number, one in enumerate(rollouts)
    ]
    few = measure(merged, promises).brier
    assert many.value == pytest.approx(few.value)
    for figure in (many, few):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= (figure.value or 0) <= figure.high


def test_the_interval_of_ece_holds_it_although_resampling_makes_it_larger() -> None:
    rng = np.random.default_rng(1)
    chances = rng.random(300).tolist()
    rollouts = [rollout(f"q{number}", float(rng.random() < chance), 1) for number, chance in enumerate(chances)]
    figure = measure(rollouts, [[chance] for chance in chances]).ece
    assert (figure.low or 0) < (figure.value or 0) < (figure.high or 0)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=6), st.data())
def test_best_of_n_is_the_mean_over_all_subsets(attempts: list[tuple[float, float]], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(attempts)))
    expected = []
    for subset in combinations(attempts, size):
        best = max(score for score, _ in subset)
        expected.append(np.mean([outcome for score, outcome in subset if score == best]))
    scores, outcomes = zip(*attempts, strict=True)
    # Ties are broken alike in every subset, so over all subsets each of the tied is chosen as often as the others.
    assert chosen_by(scores, outcomes, size) == pytest.approx(float(np.mean(expected)))


def test_best_of_n_lies_between_chance_and_the_oracle_and_a_constant_score_is_chance() -> None:
    rollouts, promises = some()
    perfect = [[one.outcome or 0.0] * one.steps for one in rollouts]
    constant = [[0.5] * one.steps for one in rollouts]
    rows = measure(rollouts, perfect, orm=constant).best_of_n
    assert [row.n for row in rows] == [1, 2, 4]
    for row in rows:
        assert row.orm is not None
        assert row.promise.value == pytest.approx(row.oracle.value)
        assert row.orm.value == pytest.approx(row.random.value)
    assert all((row.promise.value or 0) <= (row.oracle.value or 0) for row in measure(rollouts, promises).best_of_n)


def test_a_majority_chooses_the_most_frequent_last_action() -> None:
    query = [Attempt(1.0, 0.1, None, "42"), Attempt(1.0, 0.2, None, "42"), Attempt(0.0, 0.9, None, "41")]
    assert majority(query, 3) == 1.0
    assert majority(query, 2) == pytest.approx((1 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize(
    "rollouts",
    [[], [rollout("q", 1.0, 2)], [rollout("q", None, 2)], [rollout("q", 1.0, 1), rollout("r", 1.0, 3)]],
    ids=["nothing", "one", "no outcome", "one outcome only"],
)
def test_too_little_data_gives_a_reason_and_never_a_nan(rollouts: list[Rollout]) -> None:
    figures = measure(rollouts, [[0.5] * one.steps for one in rollouts])
    assert figures.step_auc.value is None
    assert figures.step_auc.why
    assert "nan" not in str(figures.to_json())
    assert "nan" not in as_text(figures)


def test_a_task_that_was_trained_on_is_named_by_its_query() -> None:
    chat = Conversation((Message("user", "Refund order 17."), Message("assistant", "Done.")), ())
    held_out = [Rollout(chat, 1.0, truncated=False, query="a"), rollout("b", 0.0, 1)]
    trained_on = [Rollout(chat, 0.0, truncated=False, query="c"), rollout("d", 0.0, 1)]
    assert measure(held_out, [[0.5], [0.5]], trained_on=trained_on).leaks == ["a"]


def test_what_needs_no_model_is_measured_too() -> None:
    rollouts = [rollout("q", 1.0, 1), rollout("q", 0.0, 5), rollout("r", 1.0, 1), rollout("r", 0.0, 5)]
    floors: Any = measure(rollouts, [[0.5] * one.steps for one in rollouts]).floors
    assert floors["number of steps"].value == 1.0
