import numpy as np
import pytest

from training.evaluation.metrics import Indices, best_of, bootstrap, calibration_error, step_auc, success_interval


def test_auc_is_the_chance_that_a_success_outranks_a_failure() -> None:
    promises, outcomes = np.array([0.9, 0.4, 0.4, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert step_auc(promises, outcomes) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_a_promise_that_is_the_success_rate_is_calibrated() -> None:
    outcomes = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    assert calibration_error(np.repeat([0.25, 0.75], 4), outcomes) == pytest.approx(0)
    assert calibration_error(np.repeat([0.45, 0.75], 4), outcomes) == pytest.approx(0.1)
    assert calibration_error(np.ones(4), np.zeros(4)) == pytest.approx(1)


def test_best_of_n_takes_the_outcome_of_the_best_scored_in_each_group() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5, 0.7]])
    outcomes = np.array([[1.0, 0.0, 1.0, 0.0, 1.0]])
    assert best_of(scores, outcomes, 1).tolist() == outcomes.tolist()
    assert best_of(scores, outcomes, 2).tolist() == [[0.0, 1.0]]
    assert best_of(outcomes, outcomes, 4).tolist() == [[1.0]]


def test_the_interval_covers_differences_between_goals_and_between_training_runs() -> None:
    certain = success_interval(np.full((3, 50, 2), 0.5))
    assert (certain.mean, certain.low, certain.high) == (0.5, 0.5, 0.5)
    by_goal = success_interval(np.tile((np.arange(50) % 2).reshape(1, 50, 1), (3, 1, 2)).astype(float))
    assert by_goal.low < 0.45
    assert by_goal.high > 0.55
    by_run = success_interval(np.stack([np.zeros((50, 2)), np.ones((50, 2))]))
    assert (by_run.low, by_run.high) == (0, 1)


def test_a_bootstrapped_statistic_sees_whole_goals() -> None:
    def statistic(run: int, goals: Indices) -> float:
        return float(run + 0 * goals.sum())

    assert bootstrap(statistic, runs=1, goals=3).mean == 0
