"""``add --check`` and ``inspect --check``, typed as a user does."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.__main__ import main
from model_store.format.store import Store
from tests.model_store.authors import FAMILIES, STEPS, TASK
from tests.model_store.format.test_judge import JUDGED


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The authors' numbers for the checkpoint in ``source``, with three digits."""
    family = FAMILIES["TRL"]
    promises = family.promises(tmp_path / "source", family.make(tmp_path / "source"), TASK, STEPS)
    item = {"task": TASK, "steps": [{"action": step} for step in STEPS], "promise": [round(p, 3) for p in promises]}
    (tmp_path / "check.json").write_text(json.dumps({"items": [item]}))
    return tmp_path / "check.json"


def change(file: Path, step: int, by: float) -> None:
    content = json.loads(file.read_text())
    content["items"][0]["promise"][step] += by
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_check_that_agrees_is_printed_kept_and_shown(
    store: Store, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    adding = ["--name", "trl", "--version", "1", "--check", str(file)]
    end = ["--store", str(store.root), *(["--json"] if as_json else [])]
    assert main(["add", str(tmp_path / "source"), *adding, *end]) == 0
    added = capsys.readouterr().out
    assert main(["inspect", "trl", "--check", str(file), *end]) == 0
    inspected = capsys.readouterr().out
    assert main(["show", "trl", *end]) == 0
    shown = capsys.readouterr().out
    if as_json:
        check = json.loads(added)["check"]
        assert json.loads(inspected)["check"] == check
        assert [(step["item"], step["step"], step["ok"]) for step in check["steps"]] == [
            (0, at, True) for at in range(3)
        ]
        kept = json.loads(shown)["check"]
        assert kept == {name: check[name] for name in ("items", "tolerance", "largest_difference")} | {"steps": 3}
    else:
        assert rows_of(added) == [["0", str(at), "promise", "yes"] for at in range(3)]
        assert "3 scores agree with the authors' numbers" in shown


def rows_of(text: str) -> list[list[str]]:
    """Item, step, measure and verdict of the printed table."""
    lines = [line.split() for line in text.partition("authors' number")[2].splitlines()[1:-1]]
    return [[*line[:3], line[-1]] for line in lines]


def test_a_check_that_disagrees_prints_the_table_and_ends_with_1(
    store: Store, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(file, 1, by=0.01)
    source = str(tmp_path / "source")
    end = ["--check", str(file), "--store", str(store.root)]
    assert main(["add", source, "--name", "trl", "--version", "1", *end]) == 1
    printed, errors = capsys.readouterr()
    assert [row[-1] for row in rows_of(printed)] == ["yes", "NO", "yes"]
    assert errors.startswith("agentprm: 1 of 3 scores differ")
    assert errors.endswith("nothing was published\n")
    assert store.references() == []
    assert main(["add", source, "--name", "trl", "--version", "1", *end, "--json"]) == 1
    found: Any = json.loads(capsys.readouterr().out)
    assert (found["check"]["agrees"], store.references()) == (False, [])
    assert main(["inspect", source, *end]) == 1
    assert "1 of 3 scores differ" in capsys.readouterr().out


def test_a_file_that_is_wrong_is_refused_before_anything_is_read(
    store: Store, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("{}")
    arguments = ["nobody/nothing@0", "--check", str(file), "--store", str(store.root)]
    assert main(["inspect", *arguments]) == 1
    assert capsys.readouterr().err == f"agentprm: {file}: items is missing\n"


@pytest.mark.parametrize("with_check", [False, True])
def test_a_judge_is_not_inspected_for_its_server_scores(
    store: Store, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], with_check: bool
) -> None:
    (tmp_path / "judge").mkdir()
    store.root.mkdir(exist_ok=True)
    store.publish(tmp_path / "judge", JUDGED)
    arguments = ["inspect", JUDGED.name, "--store", str(store.root), *(["--check", str(file)] if with_check else [])]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "agentprm: judge@1 is a judge, whose server gives the scores; show prints its manifest\n"
    )
