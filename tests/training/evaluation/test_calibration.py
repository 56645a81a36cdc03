"""Maps from raw scores to promises: fitted on labels, monotone, and applied by the recipe alike everywhere."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from model_store.errors import ManifestInvalid
from model_store.format.recipe import Calibration, ScoreRecipe, check_score
from training.evaluation.calibration import METHODS, Labelled, Method, calibrate, fit, labelled
from training.rollouts.rollout import Rollout

SCORE = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")


def over_confident(steps: int = 3000, seed: int = 0) -> Labelled:
    """Raw scores that are three times the true log-odds, of 60 queries."""
    rng = np.random.default_rng(seed)
    odds_N = rng.normal(0, 1, steps)
    label_N = (rng.random(steps) < 1 / (1 + np.exp(-odds_N))).astype(float)
    return Labelled(3 * odds_N, label_N, rng.integers(0, 60, steps))


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_map_is_right_on_queries_that_it_did_not_see(method: Method) -> None:
    found = calibrate(SCORE, over_confident(), method)
    assert found.before.ece.value is not None
    assert found.after.ece.value is not None
    assert found.after.ece.value < found.before.ece.value / 3
    other = over_confident(seed=1)
    promises = [found.score.promise(raw) for raw in other.raw_N.tolist()]
    assert np.mean(promises) == pytest.approx(other.label_N.mean(), abs=0.03)
    check_score(found.score)


def test_a_temperature_is_the_factor_that_the_scores_are_too_large_by() -> None:
    calibration = calibrate(SCORE, over_confident(), "temperature").score.calibration
    assert calibration is not None
    assert calibration.a == pytest.approx(1 / 3, abs=0.03)
    assert calibration.b == 0


@given(st.sampled_from(METHODS), st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_a_better_raw_score_never_has_a_lower_promise(method: Method, raw: list[float]) -> None:
    fitted = fit(SCORE, *over_confident(300)[:2], method)
    promises = [fitted.promise(score) for score in sorted(raw)]
    assert promises == sorted(promises)
    assert all(0 <= promise <= 1 for promise in promises)


def test_a_table_has_straight_lines_between_its_pairs_and_level_ends() -> None:
    table = replace(SCORE, isotonic=((-1.0, 0.1), (1.0, 0.5), (2.0, 0.5), (4.0, 0.9)))
    check_score(table)
    assert [table.promise(raw) for raw in (-9, -1, 0, 1, 1.5, 2, 3, 4, 9)] == pytest.approx(
        [0.1, 0.1, 0.3, 0.5, 0.5, 0.5, 0.7, 0.9, 0.9]
    )
    assert np.isnan(table.promise(float("nan")))


@pytest.mark.parametrize(
    "table",
    [
        ((0.0, 0.5),),
        ((0.0, 0.5), (0.0, 0.6)),
        ((0.0, 0.5), (1.0, 0.4)),
        ((0.0, -0.1), (1.0, 1.0)),
        ((0.0, 0.0), (1.0, 2.0)),
    ],
    ids=["one pair", "equal raws", "falling", "below 0", "above 1"],
)
def test_a_table_that_does_not_rise_within_its_bounds_is_refused(table: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ManifestInvalid, match="isotonic must hold two pairs or more"):
        check_score(replace(SCORE, isotonic=table))


def test_a_recipe_has_a_calibration_or_a_table() -> None:
    both = replace(SCORE, isotonic=((0.0, 0.0), (1.0, 1.0)), calibration=Calibration(1.0, 0.0))
    with pytest.raises(ManifestInvalid, match="without a calibration"):
        check_score(both)


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_are_wrong_way_round_are_not_calibrated(method: Method) -> None:
    steps = over_confident()
    with pytest.raises(AgentPRMError, match="higher raw score"):
        calibrate(SCORE, steps._replace(raw_N=-steps.raw_N), method)


def test_too_few_queries_are_refused() -> None:
    steps = over_confident()
    with pytest.raises(AgentPRMError, match="3 queries cannot be parted into 5 folds"):
        calibrate(SCORE, steps._replace(query_N=steps.query_N % 3), "platt")


def test_given_labels_win_over_the_outcome() -> None:
    history = Trajectory("t", (Step("", "a"), Step("", "b")))
    given = Rollout(history, 1.0, truncated=False, query="q", labels=(0.25, None))
    plain = Rollout(history, 1.0, truncated=False, query="r")
    steps = labelled([given, plain], [[1.0, 2.0], [3.0, 4.0]])
    assert steps.raw_N.tolist() == [1, 3, 4]
    assert steps.label_N.tolist() == [0.25, 1, 1]
    assert steps.query_N.tolist() == [0, 1, 1]
    with pytest.raises(AgentPRMError, match="2 labelled steps have fewer than two different labels"):
        labelled([plain], [[3.0, 4.0]])
