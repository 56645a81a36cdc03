from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.environments.textcraft.environment import Goal, TextCraft, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.__main__ import app
from training.rollouts.collect import collect
from training.rollouts.reading import read


@pytest.mark.parametrize(("flags", "goals"), [(["--split", "held-out"], held_out_goals()), ([], train_goals())])
def test_the_command_writes_what_collect_gives(tmp_path: Path, flags: list[str], goals: tuple[Goal, ...]) -> None:
    path = tmp_path / "rollouts.jsonl"
    done = CliRunner().invoke(app, ["--count", "5", "--seed", "9", "--output", str(path), *flags])
    assert (done.exit_code, done.stdout) == (0, "")
    assert read([path]).whole() == list(collect(goals, TextCraft, NoisyPlanner(), count=5, seed=9))


@pytest.mark.parametrize("flags", [["--count", "5"], ["--count", "x", "--seed", "0", "--output", "unused"]])
def test_a_wrong_command_exits_with_2(flags: list[str]) -> None:
    assert CliRunner().invoke(app, flags).exit_code == 2
