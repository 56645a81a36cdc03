"""Collecting, writing and reading rollouts."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import AgentPRMError
from training.environments.textcraft.environment import Goal, TextCraft, goals, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.__main__ import main
from training.rollouts.collect import collect, monte_carlo_promise, roll_out
from training.rollouts.files import read_rollouts, write_rollouts
from training.rollouts.rollout import Rollout


def replayed_outcome(rollout: Rollout, env: TextCraft) -> float:
    assert env.reset().task == rollout.trajectory.task
    observations = [""] + [env.step(step.action).observation for step in rollout.trajectory.steps]
    assert observations == [*(step.observation for step in rollout.trajectory.steps), rollout.final_observation]
    return env.outcome


@given(st.sampled_from(goals()), st.integers(0, 2**32))
def test_a_rollout_replays_to_the_same_replies_and_outcome(goal: Goal, seed: int) -> None:
    env = TextCraft(goal, seed)
    rollout = roll_out(env, NoisyPlanner(), random.Random(seed))
    assert (rollout.goal, rollout.seed) == (goal.item, seed)
    assert (rollout.terminated, rollout.truncated) == (True, False)
    assert replayed_outcome(rollout, env) == rollout.outcome


def test_a_cut_by_the_collector_truncates_and_does_not_terminate() -> None:
    rollout = roll_out(TextCraft(goals()[0], 0), NoisyPlanner(), random.Random(0), max_steps=2)
    assert len(rollout.trajectory.steps) == 2
    assert (rollout.terminated, rollout.truncated, rollout.outcome) == (False, True, 0)


def test_an_end_at_the_last_allowed_step_is_no_cut() -> None:
    env = TextCraft(goals()[0], 0)
    rollout = roll_out(env, NoisyPlanner(eps=0), random.Random(0), max_steps=env.plan().length)
    assert (rollout.terminated, rollout.truncated, rollout.outcome) == (True, False, 1)


def test_a_longer_collection_starts_with_the_shorter_one() -> None:
    long = list(collect(train_goals(), 40, seed=3))
    assert list(collect(train_goals(), 25, seed=3)) == long[:25]
    assert list(collect(train_goals(), 40, seed=4)) != long


def test_a_collection_visits_every_goal_once_a_round() -> None:
    collected = [rollout.goal for rollout in collect(held_out_goals(), 160, seed=0)]
    every = sorted(goal.item for goal in held_out_goals())
    assert sorted(collected[:80]) == sorted(collected[80:]) == every
    assert collected[:80] != collected[80:]


def test_promise_is_the_share_of_continuations_that_succeed() -> None:
    env, rng = TextCraft(goals()[0], 0), random.Random(0)
    before = (env.inventory, env.left)
    assert monte_carlo_promise(env, NoisyPlanner(eps=0), rng, 8) == 1
    assert 0 < monte_carlo_promise(env, NoisyPlanner(), rng, 200) < 1
    assert (env.inventory, env.left) == before


def test_the_promise_of_an_ended_episode_is_its_outcome() -> None:
    env, rng = TextCraft(goals()[0], 0), random.Random(0)
    while not env.terminated:
        env.step("inventory")
    assert monte_carlo_promise(env, NoisyPlanner(eps=0), rng, 8) == 0


def test_rollouts_read_back_as_written(tmp_path: Path) -> None:
    written = list(collect(train_goals(), 20, seed=0, max_steps=6))
    written.append(replace(written[0], final_observation='a "quote", a\nline break\u2028and an ü'))
    assert write_rollouts(tmp_path / "rollouts.jsonl", written) == 21
    assert read_rollouts(tmp_path / "rollouts.jsonl") == written


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[Rollout]:
        yield from collect(train_goals(), 2, seed=1)
        raise RuntimeError("interrupted")

    path = tmp_path / "rollouts.jsonl"
    old = list(collect(train_goals(), 3, seed=0))
    write_rollouts(path, old)
    with pytest.raises(RuntimeError, match="interrupted"):
        write_rollouts(path, failing())
    assert read_rollouts(path) == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"outcome": "1"}, "outcome is '1'"),
        ({"outcome": 1.5}, r"not in \[0, 1\]"),
        ({"outcome": float("nan")}, r"not in \[0, 1\]"),
        ({"truncated": True}, "either terminated or truncated"),
        ({"seed": True}, "seed is True"),
        ({"trajectory": {"task": "t", "steps": [{"observation": "o"}]}}, "action"),
        ({"trajectory": None}, "NoneType"),
        ({"reward": 1.0}, "exactly"),
    ],
)
def test_a_bad_row_names_its_file_and_line(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, collect(train_goals(), 3, seed=0))
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(AgentPRMError, match=rf"rollouts\.jsonl, line 2: .*{complaint}"):
        read_rollouts(path)


@pytest.mark.parametrize("line", ["", "{", "[]", "null"])
def test_a_row_that_is_no_object_names_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, collect(train_goals(), 1, seed=0))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(AgentPRMError, match=r"line 2: not a rollout"):
        read_rollouts(path)


def test_the_command_line_writes_what_collect_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rollouts.jsonl"
    arguments = ["rollouts", "--count", "5", "--seed", "9", "--output", str(path), "--split", "held-out"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert read_rollouts(path) == list(collect(held_out_goals(), 5, seed=9))
    assert capsys.readouterr().out == ""
