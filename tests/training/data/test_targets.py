"""The target of each step, by label method, against values worked out by hand."""

from dataclasses import replace

import pytest

from agentprm.types import Step, Trajectory
from model_store.text.chat_renderer import ReadTokens
from training.data.encoding import Encoded
from training.data.labels import promise_targets
from training.data.packing import pack, updates
from training.data.targets import Labels, Method, targets
from training.rollouts.rollout import Rollout

ROLLOUT = Rollout(
    Trajectory("t", (Step("", "a"), Step("", "b"), Step("", "c"))),
    0.8,
    truncated=False,
    query="q",
    continuations=((1.0, 0.0), (0.0, 0.0), (0.25,)),
    labels=(0.1, None, 0.9),
)
EXAMPLE = Encoded("one", (ReadTokens([1, 2, 3, 4], [1, 2, 3]),), ROLLOUT)
PROMISES = [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mc", [0.5, 0.0, 0.25]),
        ("mc-hard", [1.0, 0.0, 1.0]),
        ("pvm", [0.2, 0.4, 0.8]),
        ("orm", [None, None, 0.8]),
        ("steps", [0.1, None, 0.9]),
        # Backwards from the outcome: Qhat_t = gamma ((1 - lam) M_t + lam Qhat_{t+1})
        ("td-gae", [0.5 * (0.25 * 0.5 + 0.75 * 0.375), 0.5 * (0.25 * 0.6 + 0.75 * 0.8), 0.8]),
        ("no-progress", [0.5 * (0.25 * 0.5 + 0.75 * 0.375), 0.5 * (0.25 * 0.6 + 0.75 * 0.8), 0.8]),
    ],
)
def test_targets_are_those_of_the_method(method: Method, expected: list[float | None]) -> None:
    found = targets(EXAMPLE, PROMISES, Labels(method=method, gamma=0.5, lam=0.75), 0.75)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("method", ["pvm", "orm"])
def test_a_trajectory_that_a_limit_cut_has_no_outcome_to_label_with(method: Method) -> None:
    cut = replace(EXAMPLE, rollout=replace(ROLLOUT, truncated=True))
    assert targets(cut, PROMISES, Labels(method=method), 0.9) == [None, None, None]
    bootstrapped = targets(cut, PROMISES, Labels(), 0.9)
    assert bootstrapped == promise_targets(PROMISES, None, gamma=1.0, lam=0.9)


def test_lambda_falls_from_one_over_the_warm_up() -> None:
    labels = Labels(lam=0.9, lam_warm_up=0.5)
    assert [labels.lam_at(update, 10) for update in (0, 5, 9)] == pytest.approx([1.0, 0.9, 0.9])


def test_every_trajectory_comes_once_an_epoch_in_updates_of_about_equal_tokens() -> None:
    sizes = [100, 40, 60, 10, 90, 50, 50, 100]
    for epoch in updates(sizes, 200, epochs=3, seed=0):
        assert sorted(index for update in epoch for index in update) == list(range(8))
        assert all(sum(sizes[index] for index in update) <= 300 for update in epoch)
    assert updates(sizes, 200, 2, seed=1) == updates(sizes, 200, 2, seed=1)


def test_a_pack_holds_whole_trajectories_within_its_tokens() -> None:
    lengths = [90, 10, 50, 60, 30, 20]
    packs = pack([replace(EXAMPLE, name=str(n), rows=(ReadTokens([0] * n, [n - 1]),)) for n in lengths], 100)
    assert [sorted(int(one.name) for one in each) for each in packs] == [[10, 90], [30, 60], [20, 50]]
