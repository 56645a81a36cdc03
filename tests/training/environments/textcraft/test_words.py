"""TextCraft in words: another text for the same world."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.environments.textcraft.environment import Goal, TextCraft, goals, shortest, train_goals
from training.environments.textcraft.recipes import load_recipes
from training.environments.textcraft.words import NoisyPlannerInWords, TextCraftInWords, from_words, in_words
from training.rollouts.collect import collect, roll_out

any_goal = st.sampled_from(goals())
seeds = st.integers(0, 2**32)


def test_every_recipe_in_words_is_the_same_action() -> None:
    for recipe in load_recipes().recipes.values():
        words = in_words(recipe.command)
        assert "_" not in words
        assert words.count(",") == len(recipe.ingredients) - 1
        assert from_words(words) == recipe.command


@pytest.mark.parametrize("action", ["get 3 lily of the valley", "inventory", "dance", "craft", "get some string"])
def test_other_actions_come_back_from_words(action: str) -> None:
    assert in_words(from_words(action)) == action


@given(any_goal, seeds)
def test_an_episode_in_words_is_the_episode_of_ids(goal: Goal, seed: int) -> None:
    rollout = roll_out(TextCraftInWords(goal, seed), NoisyPlannerInWords(), random.Random(seed))
    env = TextCraft(goal, seed, allowed=shortest(goal) * 3 // 2)
    assert rollout.trajectory.task == in_words(env.reset().task)
    observations = [in_words(env.step(from_words(step.action)).observation) for step in rollout.trajectory.steps]
    assert observations == [*(step.observation for step in rollout.trajectory.steps[1:]), rollout.observation]
    assert (env.outcome, env.terminated) == (rollout.outcome, True)
    assert "_" not in f"{rollout.query} {observations}"


@given(any_goal, seeds)
def test_a_copy_goes_on_by_itself(goal: Goal, seed: int) -> None:
    env, rng = TextCraftInWords(goal, seed), random.Random(seed)
    twin = env.copy()
    while not twin.terminated:
        twin.step(NoisyPlannerInWords().sample(twin, rng))
    assert not env.terminated
    assert env.step("inventory").observation.startswith("Inventory: You are not carrying anything.")


def test_success_is_about_three_in_eight() -> None:
    rollouts = list(collect(train_goals(), TextCraftInWords, NoisyPlannerInWords(), count=968, seed=0))
    assert 0.33 < sum(rollout.outcome or 0 for rollout in rollouts) / len(rollouts) < 0.42
