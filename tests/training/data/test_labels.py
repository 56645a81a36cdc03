"""The identities of the AgentPRM paper's label formulas (eqs. 11-14)."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.labels import (
    final_outcome_targets,
    gae,
    lambda_returns,
    monte_carlo_targets,
    outcome_targets,
    promise_targets,
    td_errors,
)

unit = st.floats(0, 1)
promises = st.lists(unit, min_size=1, max_size=12)
outcomes = st.one_of(st.none(), unit)


def close(left: Sequence[float], right: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=1e-12) for a, b in zip(left, right, strict=True))


@given(promises, outcomes, unit, unit)
def test_gae_targets_are_the_lambda_returns(
    promises: list[float], outcome: float | None, gamma: float, lam: float
) -> None:
    assert close(
        promise_targets(promises, outcome, gamma=gamma, lam=lam),
        lambda_returns(promises, outcome, gamma=gamma, lam=lam),
    )


@given(promises, unit, unit, unit)
def test_the_terminal_target_is_the_outcome(promises: list[float], outcome: float, gamma: float, lam: float) -> None:
    assert promise_targets(promises, outcome, gamma=gamma, lam=lam)[-1] == pytest.approx(outcome)


@given(promises, unit, unit)
def test_lam_one_gives_every_step_the_discounted_outcome(promises: list[float], outcome: float, gamma: float) -> None:
    expected = outcome_targets(len(promises), outcome, gamma=gamma)
    assert close(promise_targets(promises, outcome, gamma=gamma, lam=1), expected)


@given(promises, unit)
def test_gamma_and_lam_one_label_every_step_with_the_outcome(promises: list[float], outcome: float) -> None:
    assert close(promise_targets(promises, outcome, gamma=1, lam=1), [outcome] * len(promises))


@given(promises, outcomes, unit)
def test_lam_zero_gives_the_one_step_targets(promises: list[float], outcome: float | None, gamma: float) -> None:
    targets = promise_targets(promises, outcome, gamma=gamma, lam=0)
    assert close(targets[:-1], [gamma * promise for promise in promises[:-1]])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), unit, unit)
def test_gae_is_the_sum_of_equation_13(deltas: list[float], gamma: float, lam: float) -> None:
    expected = [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]
    assert close(gae(deltas, gamma=gamma, lam=lam), expected)


@given(promises, outcomes, unit, unit, unit)
def test_targets_do_not_depend_on_the_open_start_value(
    promises: list[float], outcome: float | None, gamma: float, lam: float, start: float
) -> None:
    deltas = td_errors(promises, outcome, gamma=gamma, start=start)
    first = gae(deltas, gamma=gamma, lam=lam)[0] + start
    assert math.isclose(first, promise_targets(promises, outcome, gamma=gamma, lam=lam)[0], abs_tol=1e-12)


@given(promises, unit, unit, unit)
def test_targets_stay_in_the_unit_interval(promises: list[float], outcome: float, gamma: float, lam: float) -> None:
    targets = promise_targets(promises, outcome, gamma=gamma, lam=lam)
    assert all(-1e-12 <= target <= 1 + 1e-12 for target in targets)


def test_td_errors_are_zero_where_promises_already_tell_the_outcome() -> None:
    assert td_errors([1.0, 1.0, 1.0], 1.0, gamma=1, start=1.0) == [0, 0, 0]


def test_a_truncated_trajectory_bootstraps_instead_of_failing() -> None:
    promises = [0.5, 0.9]
    assert promise_targets(promises, None, gamma=1, lam=1) == pytest.approx([0.9, 0.9])
    assert promise_targets(promises, 0.0, gamma=1, lam=1) == pytest.approx([0.0, 0.0])


def test_a_worked_example_by_hand() -> None:
    # gamma = .9, lam = .5: Q_2 = 1, Q_1 = .9 * (.5 * .6 + .5 * 1) = .72, Q_0 = .9 * (.5 * .4 + .5 * .72) = .504
    assert promise_targets([0.4, 0.6, 0.7], 1.0, gamma=0.9, lam=0.5) == pytest.approx([0.504, 0.72, 1.0])


def test_an_outcome_model_has_one_label_a_trajectory() -> None:
    assert final_outcome_targets(3, 1.0) == [None, None, 1.0]


def test_monte_carlo_labels_are_means_or_any_success() -> None:
    continuations = [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0]]
    assert monte_carlo_targets(continuations) == [0.25, 0.0]
    assert monte_carlo_targets(continuations, hard=True) == [1.0, 0.0]


def test_empty_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="without steps"):
        promise_targets([], 1.0, gamma=1, lam=1)
    with pytest.raises(ValueError, match="without steps"):
        lambda_returns([], 1.0, gamma=1, lam=1)
    with pytest.raises(ValueError, match="at least one continuation"):
        monte_carlo_targets([[1.0], []])
