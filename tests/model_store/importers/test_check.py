"""Scores compared with the authors' numbers before a checkpoint is published."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import CheckpointError, ManifestInvalid
from model_store.format.check import Check, read_check_file
from model_store.format.manifest import Manifest, parse_manifest
from model_store.format.store import Checkpoint, Store
from model_store.importers.check import CheckFailed, compare
from tests.model_store.authors import FAMILIES, STEPS, TASK
from tests.model_store.importers.importing import add

STEPS_OF_ITEM = [{"action": step} for step in STEPS]


@pytest.fixture
def promises(tmp_path: Path) -> list[float]:
    """What the authors' code gives each step, on the checkpoint that it leaves in ``source``."""
    family = FAMILIES["TRL"]
    return family.promises(tmp_path / "source", family.make(tmp_path / "source"), TASK, STEPS)


def written(tmp_path: Path, *items: Mapping[str, Any], **more: Any) -> Path:
    file = tmp_path / "check.json"
    file.write_text(json.dumps({"items": items, **more}))
    return file


def test_a_checkpoint_that_agrees_is_published_with_its_check(
    store: Store, tmp_path: Path, promises: list[float]
) -> None:
    printed = [round(promise, 3) for promise in promises]
    file = read_check_file(written(tmp_path, {"task": TASK, "steps": STEPS_OF_ITEM, "promise": printed}))
    imported = add(store, tmp_path / "source", check=file)
    assert imported.comparison is not None
    assert [step.ours for step in imported.comparison.steps] == pytest.approx(promises, abs=1e-5)
    check = store.resolve("foreign").manifest.check
    assert check == imported.comparison.outcome()
    assert (check.steps, check.tolerance) == (3, 1e-3)
    assert 0 < check.largest_difference <= 5.1e-4


@pytest.mark.parametrize("wrong", range(3))
def test_one_number_off_at_any_step_publishes_nothing(
    store: Store, tmp_path: Path, promises: list[float], wrong: int
) -> None:
    promises[wrong] += 0.0011
    file = read_check_file(written(tmp_path, {"task": TASK, "steps": STEPS_OF_ITEM, "promise": promises}))
    with pytest.raises(CheckFailed, match="1 of 3 scores differ") as failed:
        add(store, tmp_path / "source", check=file)
    assert [step.ok for step in failed.value.comparison.steps] == [step != wrong for step in range(3)]
    assert list(store.root.iterdir()) == []


def test_a_chat_and_a_number_for_the_last_step_are_compared_too(
    store: Store, tmp_path: Path, promises: list[float]
) -> None:
    chat = [{"role": "user", "content": TASK}, {"role": "assistant", "content": STEPS[0]}]
    file = read_check_file(
        written(
            tmp_path,
            {"messages": chat, "promise": promises[0]},
            {"task": TASK, "steps": STEPS_OF_ITEM, "promise": promises[2]},
        )
    )
    imported = add(store, tmp_path / "source", check=file)
    assert imported.comparison is not None
    assert [(step.item, step.step) for step in imported.comparison.steps] == [(0, 0), (1, 2)]


def test_raw_scores_are_compared_as_the_wire_has_them(store: Store, tmp_path: Path, promises: list[float]) -> None:
    checkpoint = add(store, tmp_path / "source").checkpoint
    item = {"task": TASK, "steps": STEPS_OF_ITEM}
    found = compare(checkpoint, read_check_file(written(tmp_path, {**item, "raw": [0, 0, 0]}, tolerance=0.5)))
    raw = [step.ours for step in found.steps]
    assert list(map(checkpoint.manifest.score.promise, raw)) == pytest.approx(promises, abs=1e-5)
    assert [step.ok for step in found.steps] == [abs(score) <= 0.5 for score in raw]
    assert compare(checkpoint, read_check_file(written(tmp_path, {**item, "raw": raw}, tolerance=0))).agrees


def test_the_digest_is_of_the_items_and_not_of_their_spacing(tmp_path: Path) -> None:
    item = {"task": TASK, "steps": STEPS_OF_ITEM, "promise": 0.5}
    file = written(tmp_path, item)
    digest = read_check_file(file).digest()
    file.write_text(json.dumps({"tolerance": 0.1, "items": [dict(reversed(item.items()))]}, indent=3))
    assert read_check_file(file).digest() == digest
    assert read_check_file(written(tmp_path, {**item, "promise": 0.6})).digest() != digest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be an object"),
        ({}, ": items is missing"),
        ({"items": []}, "items must hold an item"),
        ({"items": [{}]}, r"items\[0\]: either promise or raw"),
        ({"items": [{"raw": 1}]}, r"items\[0\]: either task, with steps, or messages"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "raw": 1, "promise": 1}]}, "either promise or raw"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "promise": 1.1}]}, "promise must be from 0 to 1"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "promise": "1"}]}, "promise must be a number, or a list"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "raw": [True]}]}, "raw must be a number, or a list"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "raw": float("nan")}]}, "raw must be a number"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "score": 1}]}, r"items\[0\]: score is not a field"),
        ({"items": [{"task": "t", "steps": "a", "raw": 1}]}, r"items\[0\]: steps must be a list"),
        ({"items": [{"task": "t", "steps": [{"action": "a"}], "raw": 1}], "tolerance": -1}, "must not be negative"),
        ({"items": [{"task": "t\ud800", "steps": [{"action": "a"}], "raw": 1}]}, "Invalid JSON"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_place(tmp_path: Path, content: object, complaint: str) -> None:
    file = tmp_path / "check.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CheckpointError, match=complaint) as refused:
        read_check_file(file)
    assert str(refused.value).startswith(str(file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ({"task": "Goal", "steps": []}, "items.0: .*steps must hold at least one step"),
        ({"task": "Goal", "steps": [{"action": ""}]}, "items.0.steps.0.action: "),
        ({"task": "Goal", "steps": [{"act": "get 1"}]}, "items.0.steps.0.action: Field required"),
        ({"messages": [{"role": "user", "content": "Goal"}]}, "items.0: "),
        ({"messages": [{"role": "robot", "content": "Goal"}]}, "items.0.messages.0.role: "),
        ({"task": "1 " * 65, "steps": [{"action": "get 1"}]}, "items.0 has more than the 64 tokens that are read"),
        (
            {"task": "Goal", "steps": [{"action": "get 1"}], "raw": [1, 2]},
            "items.0.raw must hold as many numbers as the item has steps, 1; it holds 2",
        ),
    ],
)
def test_an_item_that_cannot_be_scored_is_refused_with_its_place(
    published: Checkpoint, tmp_path: Path, item: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        compare(published, read_check_file(written(tmp_path, {"raw": 1, **item})))


@pytest.mark.parametrize("impossible", [{"steps": 0}, {"largest_difference": 0.2}, {"largest_difference": -0.1}])
def test_a_manifest_holds_only_checks_that_agreed(manifest: Manifest, impossible: dict[str, Any]) -> None:
    checked = replace(manifest, digest="sha256:0", check=Check("sha256:1", 0.1, 0.01, 3))
    assert parse_manifest(checked.to_json()) == checked
    assert checked.check is not None
    with pytest.raises(ManifestInvalid, match=r"^prm\.json: check: "):
        parse_manifest(replace(checked, check=replace(checked.check, **impossible)).to_json())
