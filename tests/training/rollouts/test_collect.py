"""Playing episodes, collecting them and estimating promise."""

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.guessing import NUMBERS, TRIES, Guesser, Guessing
from training.environments.textcraft.environment import Goal, TextCraft, goals, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect, monte_carlo_promise, roll_out
from training.rollouts.files import write_rollouts
from training.rollouts.rollout import Rollout

RECORDED = "a04422113b0c9be0f9e3f19a55afdbc59e36967ec44ad3fa139c1b4136815a77"


def collected(goals: tuple[Goal, ...], count: int, seed: int) -> list[Rollout]:
    return list(collect(goals, TextCraft, NoisyPlanner(), count=count, seed=seed))


def replayed_outcome(rollout: Rollout, env: TextCraft) -> float:
    assert env.reset().task == rollout.trajectory.task
    observations = [""] + [env.step(step.action).observation for step in rollout.trajectory.steps]
    assert observations == [*(step.observation for step in rollout.trajectory.steps), rollout.observation]
    return env.outcome


@given(st.sampled_from(goals()), st.integers(0, 2**32))
def test_a_rollout_replays_to_the_same_replies_and_outcome(goal: Goal, seed: int) -> None:
    env = TextCraft(goal, seed)
    rollout = roll_out(env, NoisyPlanner(), random.Random(seed))
    assert (rollout.query, rollout.metadata) == (goal.item, {"seed": seed})
    assert not rollout.truncated
    assert replayed_outcome(rollout, env) == rollout.outcome


def test_a_cut_by_the_collector_truncates_and_does_not_terminate() -> None:
    rollout = roll_out(TextCraft(goals()[0], 0), NoisyPlanner(), random.Random(0), max_steps=2)
    assert len(rollout.trajectory.steps) == 2
    assert (rollout.truncated, rollout.outcome) == (True, 0)


def test_an_end_at_the_last_allowed_step_is_no_cut() -> None:
    env = TextCraft(goals()[0], 0)
    rollout = roll_out(env, NoisyPlanner(eps=0), random.Random(0), max_steps=env.plan().length)
    assert (rollout.truncated, rollout.outcome) == (False, 1)


def test_a_seed_gives_the_recorded_rollouts_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, collected(train_goals(), 50, seed=0))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == RECORDED


def test_a_longer_collection_starts_with_the_shorter_one() -> None:
    long = collected(train_goals(), 40, seed=3)
    assert collected(train_goals(), 25, seed=3) == long[:25]
    assert collected(train_goals(), 40, seed=4) != long


def test_a_collection_visits_every_goal_once_a_round() -> None:
    names = [rollout.query for rollout in collected(held_out_goals(), 160, seed=0)]
    every = sorted(goal.item for goal in held_out_goals())
    assert sorted(names[:80]) == sorted(names[80:]) == every
    assert names[:80] != names[80:]


def test_any_environment_is_collected() -> None:
    rollouts = list(collect(NUMBERS, Guessing, Guesser(), count=40, seed=0))
    assert {rollout.query for rollout in rollouts} == {f"number {number}" for number in NUMBERS}
    assert {rollout.outcome for rollout in rollouts} == {0, 1}
    for rollout in rollouts:
        guesses = [step.action for step in rollout.trajectory.steps]
        assert rollout.outcome == (guesses[-1] == rollout.query.removeprefix("number "))
        assert len(guesses) == TRIES or rollout.outcome == 1


def test_a_collection_without_goals_is_an_error() -> None:
    with pytest.raises(ValueError, match="no goals"):
        next(collect([], Guessing, Guesser(), count=1, seed=0))


def test_promise_is_the_share_of_continuations_that_succeed() -> None:
    env, rng = TextCraft(goals()[0], 0), random.Random(0)
    before = (env.inventory, env.actions_left)
    assert monte_carlo_promise(env, NoisyPlanner(eps=0), rng, 8) == 1
    assert 0 < monte_carlo_promise(env, NoisyPlanner(), rng, 200) < 1
    assert (env.inventory, env.actions_left) == before


def test_the_promise_of_an_ended_episode_is_its_outcome() -> None:
    env, rng = TextCraft(goals()[0], 0), random.Random(0)
    while not env.terminated:
        env.step("inventory")
    assert monte_carlo_promise(env, NoisyPlanner(eps=0), rng, 8) == 0
