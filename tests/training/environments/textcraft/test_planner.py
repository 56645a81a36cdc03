"""The noisy planner: what it does right, what it does wrong, and how often."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from training.environments.base import Policy
from training.environments.textcraft.environment import Goal, TextCraft, goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner, right_actions, systematic_mistake

any_goal = st.sampled_from(goals())
seeds = st.integers(0, 2**32)


def started(goal: Goal, seed: int) -> TextCraft:
    """Returns an episode after at most two noisy steps, so not over."""
    env, rng = TextCraft(goal, seed), random.Random(seed)
    for _ in range(rng.randrange(3)):
        env.step(NoisyPlanner().sample(env, rng))
    return env


def plan_length_after(env: TextCraft, action: str) -> int:
    twin = env.copy()
    twin.step(action)
    return twin.plan().length


def success(policy: Policy[TextCraft], votes: int, episodes: int) -> float:
    rng = random.Random(0)
    won = 0.0
    for number in range(episodes):
        env = TextCraft(train_goals()[number % len(train_goals())], number)
        while not env.terminated:
            env.step(Counter(policy.sample(env, rng) for _ in range(votes)).most_common(1)[0][0])
        won += env.outcome
    return won / episodes


@given(any_goal, seeds)
def test_every_right_action_leaves_a_plan_one_action_shorter(goal: Goal, seed: int) -> None:
    env = started(goal, seed)
    lengths = [plan_length_after(env, action) for action in right_actions(env)]
    assert lengths
    assert set(lengths) == {env.plan().length - 1}


@given(any_goal, seeds)
def test_a_systematic_mistake_changes_nothing_and_comes_again(goal: Goal, seed: int) -> None:
    env = started(goal, seed)
    mistake = systematic_mistake(env)
    inventory = env.inventory
    assert env.step(mistake).observation.startswith("Could not find")
    assert env.inventory == inventory
    assert env.terminated or systematic_mistake(env) == mistake


@given(any_goal, seeds)
def test_sampling_leaves_the_episode_as_it_is(goal: Goal, seed: int) -> None:
    env = started(goal, seed)
    before = (env.inventory, env.actions_left)
    NoisyPlanner().sample(env, random.Random(seed))
    assert (env.inventory, env.actions_left) == before


def test_without_noise_every_episode_succeeds() -> None:
    assert success(NoisyPlanner(eps=0), votes=1, episodes=242) == 1


def test_success_is_about_three_in_ten() -> None:
    assert 0.25 < success(NoisyPlanner(), votes=1, episodes=1210) < 0.35


def test_a_majority_of_four_votes_stays_under_one_half() -> None:
    assert 0.35 < success(NoisyPlanner(), votes=4, episodes=726) < 0.52


def test_the_most_likely_action_is_often_a_mistake() -> None:
    rng = random.Random(0)
    wrong = 0
    for number, goal in enumerate(train_goals()):
        env = started(goal, number)
        votes = Counter(NoisyPlanner().sample(env, rng) for _ in range(64))
        wrong += votes.most_common(1)[0][0] not in right_actions(env)
    assert 0.2 < wrong / len(train_goals()) < 0.8
