import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from agentprm.search.choosers import Choose, first, majority
from agentprm.types import State
from tests.training.guessing import NUMBERS, Guesser, Guessing
from training.environments.textcraft.environment import TextCraft, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner, right_actions
from training.evaluation.acting import act

GOALS = train_goals()[:4]


class Shortest:
    """A policy without mistakes."""

    def sample(self, env: TextCraft, rng: random.Random) -> str:
        return rng.choice(right_actions(env))


def test_a_policy_without_mistakes_always_succeeds() -> None:
    outcomes = act(GOALS, TextCraft, Shortest(), first, proposals=1, episodes=2, seed=0)
    assert outcomes.shape == (4, 2)
    assert outcomes.all()


def test_the_same_seed_plays_the_same_episodes() -> None:
    def play(seed: int) -> list[float]:
        return act(GOALS, TextCraft, NoisyPlanner(), first, proposals=1, episodes=8, seed=seed).ravel().tolist()

    assert play(1) == play(1)
    assert len({tuple(play(seed)) for seed in range(4)}) > 1


def test_a_seed_plays_the_recorded_episodes() -> None:
    outcomes = act(held_out_goals()[:4], TextCraft, NoisyPlanner(), majority, proposals=4, episodes=6, seed=1)
    assert outcomes.tolist() == [[0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]]


def test_any_environment_is_acted_in() -> None:
    def smallest_new(states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        tried = [{step.action for step in state.steps} for state in states]
        return [min(set(actions) - taken) for actions, taken in zip(proposed, tried, strict=True)]

    outcomes = act(NUMBERS, Guessing, Guesser(), smallest_new, proposals=64, episodes=3, seed=0)
    assert outcomes.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]  # two tries: 0, then 1


def test_each_state_is_judged_with_the_history_the_agent_saw() -> None:
    seen: list[State] = []

    def watch(states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        seen.extend(states)
        return [actions[0] for actions in proposed]

    act(GOALS[:1], TextCraft, Shortest(), watch, proposals=1, episodes=1, seed=0)
    assert [len(state.steps) for state in seen] == list(range(len(seen)))
    assert seen[0].observation == ""
    assert seen[1].steps[0].action in ("", *(step.action for step in seen[-1].steps))
    assert all(state.observation for state in seen[1:])
    assert all(later.steps[: len(earlier.steps)] == earlier.steps for earlier, later in pairwise(seen))


def test_outcomes_are_those_of_the_environment() -> None:
    outcomes = act(GOALS, TextCraft, NoisyPlanner(eps=1.0), first, proposals=1, episodes=4, seed=0)
    assert np.isin(outcomes, [0.0, 1.0]).all()
    assert outcomes.mean() < 0.5


@pytest.mark.parametrize("chooser", [first, majority])
def test_baselines_choose_one_of_the_proposed(chooser: Choose) -> None:
    proposed = [["x", "y"], ["z"]]
    chosen = chooser([State("")] * 2, proposed)
    assert all(action in actions for action, actions in zip(chosen, proposed, strict=True))
