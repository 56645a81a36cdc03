"""Any content of a store's JSON files is read or refused in one sentence; nothing else is raised."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import CheckpointCorrupt, CheckpointError, ManifestInvalid
from model_store.format.manifest import parse_manifest
from model_store.format.store import Checkpoint, Store
from tests import odd_json
from tests.model_store.fuzzing import assert_one_sentence, fuzzed, mutated

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of an example that fails


def resolves(store: Store, content: bytes) -> bool:
    """Returns whether ``tiny@1`` resolves with this ``prm.json``; only errors of checkpoints may be raised."""
    (store.root / "tiny" / "1" / "prm.json").write_bytes(content)
    try:
        store.resolve("tiny@1")
    except (ManifestInvalid, CheckpointCorrupt) as error:
        assert_one_sentence(error)
        return False
    return True


@fuzzed(200)
@given(text=st.text())
def test_random_text_is_no_manifest(text: str) -> None:
    with pytest.raises(ManifestInvalid) as refused:
        parse_manifest(text)
    assert_one_sentence(refused.value)


@fuzzed(200)
@given(content=st.binary())
def test_random_bytes_are_no_manifest(store: Store, published: Checkpoint, content: bytes) -> None:
    assert not resolves(store, content)


@pytest.mark.parametrize("value", odd_json.VALUES, ids=lambda value: value[:20])
def test_a_manifest_with_an_odd_value_anywhere_is_refused(store: Store, published: Checkpoint, value: str) -> None:
    good = json.loads(published.manifest.to_json())
    for text in odd_json.in_each_place(good, value):
        assert not resolves(store, text.encode()) or json.loads(text) == good
        what_parses_can_be_written(text)


RICH: dict[str, Any] = {
    "score": {
        "head": "mlp",
        "activation": "softmax",
        "read": "action_end",
        "layers": ["score.0", "score.2"],
        "output": 1,
        "direction": "lower",
        "calibration": {"a": 2.0, "b": -1.0},
    },
    "template": {
        "begin": "",
        "task": ["", ""],
        "observation": ["", ""],
        "action": ["", "x"],
        "next": "y",
        "tokenise": "text",
        "skip_empty_observation": True,
        "strip": True,
    },
}


JUDGE: dict[str, Any] = {
    "score": {"head": "judge", "activation": "identity", "read": "verdict"},
    "judge": {"text": "{action}", "after": "(", "max_tokens": 9, "number": {"low": -1.5, "high": 4.0, "until": ")"}},
    "check": {"items": "sha256:0", "tolerance": 0.5, "largest_difference": 0.25, "steps": 3},
}


@pytest.mark.parametrize("rich", [RICH, JUDGE], ids=["recipe", "judge"])
@pytest.mark.parametrize("value", odd_json.VALUES, ids=lambda value: value[:20])
def test_an_odd_value_anywhere_in_a_rich_manifest_is_refused_or_written_as_it_was(
    published: Checkpoint, rich: dict[str, Any], value: str
) -> None:
    good = json.loads(published.manifest.to_json()) | rich
    parse_manifest(json.dumps(good))
    what_parses_can_be_written(json.dumps(good))
    for text in odd_json.in_each_place(good, value):
        what_parses_can_be_written(text)


@pytest.mark.parametrize("name", [*odd_json.TEXTS, '"name"', '"digest"', '"a\\nb"'], ids=lambda name: name[:20])
def test_a_manifest_with_one_more_field_anywhere_is_refused(store: Store, published: Checkpoint, name: str) -> None:
    for text in odd_json.in_each_object(json.loads(published.manifest.to_json()), name, "1"):
        assert not resolves(store, text.encode())
        what_parses_can_be_written(text)


@fuzzed(100)
@given(data=st.data(), value=odd_json.nests)
def test_a_manifest_of_any_depth_is_refused(
    store: Store, published: Checkpoint, data: st.DataObject, value: str
) -> None:
    good = json.loads(published.manifest.to_json())
    text = data.draw(st.sampled_from([value, *odd_json.in_each_place(good, "?")])).replace("?", value)
    assert not resolves(store, text.encode())
    what_parses_can_be_written(text)


@fuzzed(300)
@given(data=st.data())
def test_a_manifest_with_changed_bytes_is_refused(store: Store, published: Checkpoint, data: st.DataObject) -> None:
    good = published.manifest.to_json().encode()
    changed = data.draw(mutated(good))
    assert not resolves(store, changed) or json.loads(changed) == json.loads(good)


def what_parses_can_be_written(text: str) -> None:
    try:
        manifest = parse_manifest(text)
    except ManifestInvalid as error:
        assert_one_sentence(error)
    else:
        assert manifest.content()
        assert parse_manifest(manifest.to_json()) == manifest


@fuzzed(200)
@given(content=st.one_of(st.binary(), odd_json.nests.map(str.encode), st.sampled_from(odd_json.VALUES).map(str.encode)))
def test_random_aliases_are_refused(store: Store, published: Checkpoint, content: bytes) -> None:
    (store.root / "aliases.json").write_bytes(content)
    try:
        store.resolve("prod")
    except CheckpointError as error:
        assert_one_sentence(error)
    else:
        pytest.fail("there is no alias")
