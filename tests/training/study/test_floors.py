"""Bounds of a step AUC: counting and single words below, playing on above."""

import pytest

from agentprm.types import Step, Trajectory
from training.environments.textcraft.worlds import IN_WORDS
from training.evaluation import metrics
from training.rollouts.collect import collect
from training.rollouts.rollout import Rollout
from training.study.floors import step_auc_bounds


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 20)


def played(action: str, outcome: float, steps: int, query: str) -> Rollout:
    trajectory = Trajectory("Actions allowed: 9.", tuple(Step("A room.", action) for _ in range(steps)))
    return Rollout(trajectory, outcome, truncated=False, query=query)


def test_an_outcome_that_the_words_tell_is_found_by_words_and_not_by_counting() -> None:
    rollouts = [
        played(action, outcome, 3, f"{number}")
        for number in range(20)
        for action, outcome in (("left turn", 1.0), ("right turn", 0.0))
    ]
    bounds = step_auc_bounds(rollouts, rollouts)
    assert bounds["words"].mean == 1
    assert (bounds["step index"].mean, bounds["counters"].mean) == (0.5, 0.5)


def test_an_outcome_that_the_length_tells_is_found_by_counting_and_not_by_words() -> None:
    rollouts = [
        played("turn", outcome, steps, f"{number}") for number in range(20) for steps, outcome in ((2, 1.0), (9, 0.0))
    ]
    bounds = step_auc_bounds(rollouts, rollouts)
    assert bounds["step index"].mean > 0.8
    assert bounds["counters"].mean > 0.8
    assert bounds["words"].mean == 0.5


def test_playing_on_tells_more_of_textcraft_than_words_and_counters() -> None:
    train = list(collect(IN_WORDS.train_goals(), IN_WORDS.make, IN_WORDS.policy, count=100, seed=0))
    goals = IN_WORDS.held_out_goals()
    held_out = list(collect(goals, IN_WORDS.make, IN_WORDS.policy, count=60, seed=0, continuations=4))
    bounds = step_auc_bounds(train, held_out)
    assert bounds["continuations"].low > max(bounds["words"].mean, bounds["counters"].mean)
