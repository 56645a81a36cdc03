"""Targets of each label method on trajectories of three steps."""

from dataclasses import replace
from typing import Any

import pytest

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from model_store.text.chat_renderer import ReadTokens
from training.data.encoding import Encoded
from training.data.targets import Labels, Method, refuse_missing_labels, targets
from training.rollouts.rollout import Rollout

PROMISES = [0.2, 0.6, 0.4]
ROLLOUT = Rollout(
    Trajectory("task", tuple(Step("o", "a") for _ in PROMISES)),
    outcome=1.0,
    truncated=False,
    query="task",
    continuations=((0.0, 1.0), (0.0, 0.0), (1.0,)),
    labels=(0.5, None, 1.0),
)


def encoded(**changes: Any) -> Encoded:
    return Encoded("one", (ReadTokens([0] * 9, [2, 5, 8]),), replace(ROLLOUT, **changes))


@pytest.mark.parametrize(
    ("method", "gamma", "expected"),
    [
        ("td-gae", 1.0, [0.5 * 0.2 + 0.5 * 0.8, 0.5 * 0.6 + 0.5 * 1.0, 1.0]),
        ("no-progress", 1.0, [0.5 * 0.2 + 0.5 * 0.8, 0.5 * 0.6 + 0.5 * 1.0, 1.0]),
        ("mc", 1.0, [0.5, 0.0, 1.0]),
        ("mc-hard", 1.0, [1.0, 0.0, 1.0]),
        ("pvm", 0.9, [0.81, 0.9, 1.0]),
        ("orm", 0.9, [None, None, 1.0]),
        ("steps", 1.0, [0.5, None, 1.0]),
    ],
)
def test_each_method_gives_its_targets(method: Method, gamma: float, expected: list[float | None]) -> None:
    assert targets(encoded(), PROMISES, Labels(method=method, gamma=gamma), lam=0.5) == pytest.approx(expected)


def test_td_gae_at_lambda_one_is_pvm() -> None:
    one, other = (targets(encoded(), PROMISES, Labels(method=method), lam=1.0) for method in ("td-gae", "pvm"))
    assert one == pytest.approx(other)


@pytest.mark.parametrize(
    ("method", "expected"),
    [("td-gae", [0.4 * 0.9**3, 0.4 * 0.9**2, 0.4 * 0.9]), ("pvm", [None] * 3), ("orm", [None] * 3)],
)
def test_a_trajectory_that_was_cut_takes_no_outcome(method: Method, expected: list[float | None]) -> None:
    found = targets(encoded(truncated=True), PROMISES, Labels(method=method, gamma=0.9), lam=1.0)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "changes", "complaint"),
    [
        ("mc", {"continuations": ((1.0,), (), (1.0,))}, "--labels mc needs .*continuation.*1 of 2 .*lack them: one"),
        ("mc-hard", {"continuations": ()}, "--labels mc-hard needs"),
        ("steps", {"labels": (1.0,)}, "--labels steps needs a label, or null"),
    ],
)
def test_data_that_a_method_lacks_is_refused(method: Method, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AgentPRMError, match=complaint):
        refuse_missing_labels([encoded(), encoded(**changes)], Labels(method=method))


def test_an_outcome_model_needs_a_trajectory_that_ended() -> None:
    refuse_missing_labels([encoded(truncated=True), encoded()], Labels(method="orm"))
    with pytest.raises(AgentPRMError, match="--labels orm finds no label in 1 trajectories: all were truncated"):
        refuse_missing_labels([encoded(truncated=True)], Labels(method="orm"))


def test_lambda_falls_from_one_over_the_warm_up() -> None:
    labels = Labels(lam=0.8, lam_warm_up=0.2)
    assert [labels.lam_at(update, 100) for update in (0, 10, 20, 99)] == pytest.approx([1, 0.9, 0.8, 0.8])
