"""``python -m training rollouts``: files of rollouts of any world."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from agentprm.errors import AgentPRMError
from training.__main__ import app
from training.environments.registry import WorldName, load_world
from training.environments.textcraft.environment import Goal, TextCraft, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect
from training.rollouts.reading import read
from training.rollouts.rollout import Rollout

WORDS = ["--environment", "textcraft-words", "--seed", "9"]


def written(tmp_path: Path, *options: str) -> list[Rollout]:
    path = tmp_path / "new" / "rollouts.jsonl"
    done = CliRunner().invoke(app, ["rollouts", "--out", str(path), *options])
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    return read([path]).whole()


@pytest.mark.parametrize(("split", "goals"), [("held-out", held_out_goals()), ("train", train_goals())])
def test_the_command_writes_what_collect_gives(tmp_path: Path, split: str, goals: tuple[Goal, ...]) -> None:
    found = written(tmp_path, "--environment", "textcraft", "--count", "5", "--seed", "9", "--split", split)
    assert found == list(collect(goals, TextCraft, NoisyPlanner(), count=5, seed=9))


@pytest.mark.parametrize("name", get_args(WorldName))
def test_every_world_by_name_makes_rollouts_of_disjoint_splits(name: WorldName, tmp_path: Path) -> None:
    world = load_world(name)
    assert not set(world.train_goals()) & set(world.held_out_goals())
    found = written(tmp_path, "--environment", name, "--count", "2")
    assert all(rollout.steps and rollout.query and not rollout.truncated for rollout in found)


def test_attempts_at_a_goal_share_a_query_and_differ(tmp_path: Path) -> None:
    found = written(tmp_path, *WORDS, "--count", "24", "--attempts-per-query", "8")
    assert set(Counter(rollout.query for rollout in found).values()) == {8}
    assert len({rollout.history for rollout in found}) > 12


def test_continuations_change_no_rollout_and_tell_what_a_step_is_worth(tmp_path: Path) -> None:
    plain = written(tmp_path, *WORDS, "--count", "30")
    found = written(tmp_path, *WORDS, "--count", "30", "--continuations", "4")
    assert [rollout.history for rollout in found] == [rollout.history for rollout in plain]
    for rollout in found:
        assert [len(outcomes) for outcomes in rollout.continuations] == [4] * (rollout.steps - 1) + [1]
        assert rollout.continuations[-1] == (rollout.outcome,)
    won, lost = (mean_before_the_end(found, outcome) for outcome in (1, 0))
    assert won > lost + 0.2


def mean_before_the_end(rollouts: list[Rollout], outcome: float) -> float:
    values = [sum(rollout.continuations[-2]) / 4 for rollout in rollouts if rollout.outcome == outcome]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--count", "5"], "--out"),
        (["--count", "9", "--out", "unused", "--attempts-per-query", "8"], "no multiple"),
        (["--count", "10000", "--out", "unused", "--attempts-per-query", "1"], "there are 242"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["rollouts", "--environment", "textcraft", *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("training.environments.babyai", "minigrid"))]:
        monkeypatch.delitem(sys.modules, name)
    absent: Any = None
    monkeypatch.setitem(sys.modules, "minigrid", absent)
    with pytest.raises(AgentPRMError, match="minigrid"):
        load_world("babyai")
