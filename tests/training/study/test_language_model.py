"""The study makes each part once, and asks of every command only what it takes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from training.__main__ import app
from training.environments.textcraft.worlds import IN_WORDS
from training.evaluation import metrics
from training.rollouts.collect import collect
from training.rollouts.files import write_rollouts
from training.study import language_model
from training.study.language_model import RUNS, Study

Call = tuple[str, dict[str, object]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Commands that a study gives; each leaves what it is asked for."""
    given: list[Call] = []

    def training(self: Study, command: str, options: Mapping[str, object], *more: str) -> None:
        given.append((command, dict(options) | {word.removeprefix("--"): True for word in more if word[:2] == "--"}))
        if command == "train":
            Path(str(options["store"]), str(options["name"]), str(options["version"])).mkdir(parents=True)
        elif command == "rollouts":
            rollouts = collect(IN_WORDS.train_goals(), IN_WORDS.make, IN_WORDS.policy, count=60, seed=0)
            write_rollouts(Path(str(options["out"])), rollouts)
        else:
            Path(str(options["json"])).write_text("{}", encoding="utf-8")

    monkeypatch.setattr(metrics, "RESAMPLES", 20)
    monkeypatch.setattr(Study, "_training", training)
    monkeypatch.setattr(language_model, "ranking_latency", lambda *_: {"median ms": 1.0})
    return given


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path, calls: list[Call]) -> None:
    study = Study(tmp_path, "textcraft-words", tmp_path / "base")
    for name in ["td-gae", "orm", "td-gae"]:
        study.train(name)
        study.measure(name)
    assert [command for command, _ in calls] == ["rollouts", "train", "rollouts", "evaluate", "train", "evaluate"]
    assert [options["labels"] for command, options in calls if command == "train"] == ["td-gae", "orm"]


def test_results_hold_the_bounds_and_the_runs_that_are_measured(
    tmp_path: Path, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "_result", lambda _, name: RUNS[name].labels)
    study = Study(tmp_path, "textcraft-words", tmp_path / "base")
    study.train("orm")
    study.measure("orm")
    study.write_results()
    results: dict[str, Any] = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["runs"] == {"orm": "orm"}
    assert {"step index", "counters", "words"} <= results["step AUC bounds"].keys()


def test_every_option_given_is_one_of_the_command(tmp_path: Path, calls: list[Call]) -> None:
    study = Study(tmp_path, "textcraft-words", tmp_path / "base")
    study.train("td-gae")
    study.measure("td-gae")
    commands: Any = typer.main.get_command(app)
    for command, options in calls:
        parameters = commands.commands[command].params
        assert options.keys() <= {name.removeprefix("--") for parameter in parameters for name in parameter.opts}
