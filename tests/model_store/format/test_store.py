import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, ManifestInvalid
from model_store.format.manifest import Manifest
from model_store.format.store import ALIASES, MANIFEST, Checkpoint, Store


def edit_manifest(checkpoint: Checkpoint, change: Callable[[Any], object]) -> None:
    path = checkpoint.path / "prm.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_what_was_published_resolves_to_the_same_checkpoint(store: Store, published: Checkpoint) -> None:
    assert store.resolve("tiny@1") == published
    assert published.manifest.digest.startswith("sha256:")


def test_a_bare_name_means_the_newest_version(
    store: Store, source: Path, manifest: Manifest, published: Checkpoint
) -> None:
    for version in ("9", "10"):
        store.publish(source, replace(manifest, version=version))
    assert store.resolve("tiny").manifest.version == "10"


def test_an_alias_points_to_one_version_and_can_be_moved(
    store: Store, source: Path, published: Checkpoint, second_version: Manifest
) -> None:
    store.set_alias("prod", "tiny@1")
    assert store.resolve("prod") == published
    second = store.publish(source, second_version)
    assert store.resolve("prod") == published
    store.set_alias("prod", "tiny@2")
    assert store.resolve("prod") == second
    assert store.aliases() == {"prod": "tiny@2"}


def test_a_published_version_never_changes(
    store: Store, source: Path, manifest: Manifest, published: Checkpoint
) -> None:
    with pytest.raises(CheckpointError, match="published already"):
        store.publish(source, manifest)


def test_equal_content_has_an_equal_digest_wherever_it_was_published(
    store: Store, tmp_path: Path, source: Path, manifest: Manifest, published: Checkpoint
) -> None:
    assert Store(tmp_path / "elsewhere").publish(source, manifest).manifest.digest == published.manifest.digest


def test_a_failed_publish_leaves_nothing_behind(store: Store, source: Path, manifest: Manifest) -> None:
    (source / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match="pickle"):
        store.publish(source, manifest)
    assert store.references() == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_changed_byte_in_any_file_is_refused(store: Store, published: Checkpoint, name: str) -> None:
    path = published.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match="has changed since it was published"):
        store.resolve("tiny@1")


def test_an_added_or_removed_file_is_refused(store: Store, published: Checkpoint) -> None:
    (published.path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointCorrupt, match="has changed"):
        store.resolve("tiny@1")
    (published.path / "notes.txt").unlink()
    (published.path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointCorrupt, match="has changed"):
        store.resolve("tiny@1")


def test_a_changed_score_recipe_is_refused(store: Store, published: Checkpoint) -> None:
    edit_manifest(published, lambda data: data["score"].update(activation="identity"))
    with pytest.raises(CheckpointCorrupt, match="has changed"):
        store.resolve("tiny@1")


@pytest.mark.parametrize("field", ["score", "context_length", "digest", "version"])
def test_a_manifest_without_a_field_is_refused_by_name(store: Store, published: Checkpoint, field: str) -> None:
    edit_manifest(published, lambda data: data.pop(field))
    with pytest.raises(ManifestInvalid, match=f"{field} is missing"):
        store.resolve("tiny@1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(surprise=1), "surprise is not a field"),
        (lambda data: data.update(context_length="64"), "context_length must be a whole number"),
        (lambda data: data.update(context_length=True), "context_length must be a whole number"),
        (lambda data: data["score"].update(head="magic"), "head must be one of 'linear'"),
        (lambda data: data["template"].update(action=["only one"]), "action must be a list of 2 texts"),
        (lambda data: data["score"].update(pad_token_id=-1), "pad_token_id must be a token id"),
        (lambda data: data.update(format=2), "this version reads 1"),
        (lambda data: data.update(name="other"), "says it is other@1"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(
    store: Store, published: Checkpoint, change: Callable[[Any], object], message: str
) -> None:
    edit_manifest(published, change)
    with pytest.raises(ManifestInvalid, match=message):
        store.resolve("tiny@1")


def test_a_manifest_that_is_not_json_is_refused(store: Store, published: Checkpoint) -> None:
    (published.path / "prm.json").write_text("{")
    with pytest.raises(ManifestInvalid, match="not JSON"):
        store.resolve("tiny@1")
    (published.path / "prm.json").write_bytes(b"\xff")
    with pytest.raises(ManifestInvalid, match="not UTF-8"):
        store.resolve("tiny@1")


@pytest.mark.parametrize(("name", "reason"), [("pytorch_model.bin", "pickle"), ("modeling_x.py", "code")])
def test_pickles_and_code_are_refused_before_anything_is_read(
    store: Store, published: Checkpoint, name: str, reason: str
) -> None:
    (published.path / name).write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match=reason):
        store.resolve("tiny@1")


def test_a_link_out_of_the_store_is_refused(store: Store, published: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (published.path / "link.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointCorrupt, match="is a link"):
        store.resolve("tiny@1")


@pytest.mark.parametrize("reference", ["absent", "tiny@7", "../tiny@1", "tiny@../1", "", "@", "tiny/1"])
def test_names_that_are_not_there_or_leave_the_store_are_not_found(
    store: Store, published: Checkpoint, reference: str
) -> None:
    with pytest.raises(CheckpointNotFound):
        store.resolve(reference)


def test_a_missing_store_says_that_there_is_nothing(store: Store) -> None:
    with pytest.raises(CheckpointNotFound, match="there is no directory"):
        store.resolve("demo")


def test_a_link_to_a_directory_is_refused_however_it_came_in(
    store: Store, source: Path, manifest: Manifest, tmp_path: Path
) -> None:
    """The files behind it are not hashed and can change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (source / "sub").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CheckpointCorrupt, match="is a link"):
        store.publish(source, manifest)
    (source / "sub").unlink()
    published = store.publish(source, manifest)
    (published.path / "sub").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CheckpointCorrupt, match="is a link"):
        store.resolve(manifest.reference)


def test_a_manifest_and_aliases_may_come_from_a_windows_editor(store: Store, published: Checkpoint) -> None:
    store.set_alias("prod", published.manifest.reference)
    for file in (published.path / MANIFEST, store.root / ALIASES):
        file.write_bytes(f"\ufeff{file.read_text()}".replace("\n", "\r\n").encode())
    assert store.resolve("prod") == published


@pytest.mark.parametrize("name", [MANIFEST, ALIASES])
def test_a_file_in_another_encoding_is_told_which_one_is_wanted(name: str, store: Store, published: Checkpoint) -> None:
    store.set_alias("prod", published.manifest.reference)
    file = store.root / ALIASES if name == ALIASES else published.path / MANIFEST
    file.write_text(file.read_text(), encoding="utf-16")
    with pytest.raises(CheckpointError, match="is not UTF-8; save it as UTF-8"):
        store.resolve("prod")


def test_the_nearest_name_is_told_of_one_that_is_not_there(store: Store, published: Checkpoint) -> None:
    store.set_alias("production", published.manifest.reference)
    for wanted, nearest in {"prodution": "production", "tinny": "tiny", "tiny@11": "tiny@1"}.items():
        with pytest.raises(CheckpointNotFound, match=f"no checkpoint '{wanted}' in .*; the nearest is '{nearest}'; "):
            store.reference(wanted)


@pytest.mark.parametrize(
    ("training", "trained_on"),
    [({"environment": "WebShop"}, "WebShop"), ({}, None), ({"environment": ""}, None), ({"environment": ["a"]}, None)],
)
def test_a_manifest_tells_what_the_model_was_trained_on(
    training: dict[str, object], trained_on: str | None, manifest: Manifest
) -> None:
    assert replace(manifest, training=training).trained_on == trained_on
