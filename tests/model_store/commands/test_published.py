"""The page of published repositories, compared with the presets and read by the command line's own parser."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from model_store.__main__ import app
from model_store.format.check import read_check_file
from model_store.importers.presets import PRESETS, Preset
from tests.model_store.authors import FAMILIES

PAGE = (Path(__file__).parents[3] / "docs" / "published.md").read_text(encoding="utf-8")
RECOGNISED = {family.preset for family in FAMILIES.values() if family.recognised}
COMMIT = "0123456789" * 4


class Row(NamedTuple):
    """One line of the table, without backticks."""

    repository: str
    preset: str
    score: str
    text: str
    read: str
    aggregate: str
    command: str
    notes: str


def rows() -> list[Row]:
    """The lines of the first table, which no cell cuts short: the page writes no ``|`` in its cells."""
    lines = re.findall(r"^\| (`.*) \|$", PAGE, re.MULTILINE)
    return [Row(*(cell.strip().strip("`") for cell in re.split(r" \|(?: |$)", line))) for line in lines]


def parsed(command: str) -> dict[str, Any]:
    """The options of an ``add`` as typed; it is not run."""
    program, arguments = command.split(" add ", 1)
    assert program == "python -m model_store"
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    typed = shlex.split(arguments.replace("COMMIT", COMMIT))
    return group.commands["add"].make_context("add", typed).params


def words_of(preset: Preset) -> str:
    score = preset.score
    tokens = "".join(f" {token}" for token in score.get("tokens", ()))
    output = [f"output {score['output']}"] if "output" in score else []
    return ", ".join([f"{score['head']}{tokens}", *output, score["activation"]])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.repository)
def test_a_row_says_what_its_command_imports(row: Row) -> None:
    options, preset = parsed(row.command), PRESETS[row.preset]
    assert options["source"].removesuffix(f"@{COMMIT}") == row.repository
    assert options["preset"] == row.preset or (options["preset"] is None and row.preset in RECOGNISED)
    assert row.score == words_of(preset)
    text = "{chat template}" if preset.template is None else preset.template["action"][1]
    assert json.loads(row.text) == (options["separator"] or text)
    assert (options["reference"] is not None) == (options["beta"] is not None) == (preset.score["head"] == "log_ratio")
    assert row.read
    assert set(re.split(", | or ", row.aggregate)) <= {"last", "min", "mean", "product", "—"}


def test_every_preset_has_a_row_and_no_row_or_name_is_there_twice() -> None:
    assert {row.preset for row in rows()} == set(PRESETS)
    assert len({row.repository for row in rows()}) == len(rows())
    assert len({parsed(row.command)["name"] for row in rows()}) == len(rows())


def test_every_source_is_a_directory_or_pinned_to_a_commit() -> None:
    for options in (parsed(row.command) for row in rows()):
        for source in (options[name] for name in ("source", "base", "reference", "config_from")):
            assert not source or re.fullmatch(rf"\./[a-z-]+|[\w-]+/[\w.-]+@{COMMIT}", source)


def test_the_file_of_numbers_on_the_page_is_one(tmp_path: Path) -> None:
    (written,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "numbers.json").write_text(written)
    file = read_check_file(tmp_path / "numbers.json")
    assert [item.measure for item in file.items] == ["promise", "raw"]
    assert file.tolerance == 0.002
    assert parsed(re.findall(r"^python -m model_store add .*--check.*$", PAGE, re.MULTILINE)[0])["check"]
