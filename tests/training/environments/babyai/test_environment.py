"""The world: what the agent reads and does, beside the package's own observation."""

import os
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

from training.environments.babyai.environment import BabyAI
from training.environments.babyai.goals import LEVELS, Goal, held_out_goals, train_goals
from training.environments.babyai.policy import NoisyBot
from training.rollouts.collect import collect, roll_out

STARTS = [BabyAI(Goal(level, layout), layout) for level in LEVELS for layout in (0, 1)]


def replies(env: BabyAI, actions: list[str]) -> list[str]:
    return [env.step(action).observation for action in actions if not env.terminated]


def test_train_and_held_out_goals_do_not_overlap_and_share_every_level() -> None:
    assert not set(train_goals()) & set(held_out_goals())
    for level in LEVELS:
        held_out = sum(goal.level == level for goal in held_out_goals())
        assert 0.1 < held_out / (held_out + sum(goal.level == level for goal in train_goals())) < 0.3


def test_the_same_seed_gives_the_same_rollouts_under_another_hash_seed() -> None:
    program = (
        "from training.environments.babyai.worlds import BABYAI as world\n"
        "from training.rollouts.collect import collect\n"
        "print(list(collect(world.held_out_goals(), world.make, world.policy, count=8, seed=0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[4],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout == f"{list(collect(held_out_goals(), BabyAI, NoisyBot(), count=8, seed=0))}\n"


@pytest.mark.parametrize("level", LEVELS)
def test_a_copy_goes_on_by_itself(level: str) -> None:
    goal = Goal(level, 3)
    actions = [step.action for step in roll_out(BabyAI(goal, 5), NoisyBot(), random.Random(0)).trajectory.steps]
    env = BabyAI(goal, 5)
    before = replies(env, actions[:2])
    twin = env.copy()
    roll_out_rest(twin)
    assert before + replies(env, actions[2:]) == replies(BabyAI(goal, 5), actions)


def roll_out_rest(env: BabyAI) -> None:
    rng = random.Random(7)
    while not env.terminated:
        env.step(NoisyBot().sample(env, rng))


@pytest.mark.parametrize("env", STARTS, ids=lambda env: env.task_name)
def test_the_text_names_what_the_package_shows(env: BabyAI) -> None:
    image = env._game.gen_obs()["image"]  # type: ignore[no-untyped-call]
    size = image.shape[0]
    shown = {
        (IDX_TO_COLOR[colour], IDX_TO_OBJECT[kind], size - 1 - j, i - size // 2)
        for i, j in product(range(size), range(size))
        for kind, colour, _ in [map(int, image[i, j])]
        if IDX_TO_OBJECT[kind] not in ("unseen", "empty", "wall")
    }
    told = {(thing.object.color, thing.object.type, thing.ahead, thing.right) for thing in env.things}
    assert told == shown
    assert all(f"There is a {thing.name} {thing.position}." in env.reset().observation for thing in env.things)


@pytest.mark.parametrize("env", STARTS, ids=lambda env: env.task_name)
def test_an_available_action_does_something_and_a_refused_one_nothing(env: BabyAI) -> None:
    available = env.available_actions
    named = [f"{verb} {thing.name}" for thing in env.things for verb in ("go to", "pick up", "go through")]
    for action in dict.fromkeys([*available, *named]):
        twin = env.copy()
        reply = twin.step(action).observation
        changed = twin.situation != env.situation
        assert changed == (action in available), action
        assert changed or reply.startswith("You"), reply


@pytest.mark.parametrize("env", STARTS, ids=lambda env: env.task_name)
def test_an_action_on_an_object_reaches_it(env: BabyAI) -> None:
    for thing in env.things:
        kind = thing.name.rpartition(" ")[0]
        if f"go to {thing.name}" in env.available_actions:
            assert (
                f"There is a {kind} 1 right in front of you 1 steps away." in env.copy().step(f"go to {thing.name}")[0]
            )
        if f"pick up {thing.name}" in env.available_actions:
            assert f"You are carrying a {kind}." in env.copy().step(f"pick up {thing.name}").observation


def test_the_budget_ends_an_episode_with_outcome_0_and_nothing_follows() -> None:
    env = BabyAI(Goal("PutNextS4N1", 0), 0)
    done = [env.step("dance") for _ in range(LEVELS["PutNextS4N1"])]
    assert [reply.terminated for reply in done] == [False] * (len(done) - 1) + [True]
    assert {(reply.observation, reply.outcome) for reply in done} == {("The action is not recognized.", 0.0)}
    with pytest.raises(ValueError, match="is over"):
        env.step("turn left")
