"""Whatever a checkpoint's files hold: it is refused in one sentence or loaded, and nothing else is ever raised."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from model_store.errors import CheckpointCorrupt, CheckpointError, ManifestInvalid
from model_store.format.manifest import parse_manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint, Store
from model_store.network.head_loading import layered_head
from model_store.network.heads import LinearHead
from model_store.network.model import load_model
from tests import odd_json

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of an example that fails
HIDDEN = 16
RECIPE = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")
LONGEST_SENTENCE = 6000  # a path, a reason, and perhaps an integer of as many digits as Python reads


def fuzzed(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def assert_one_sentence(error: CheckpointError) -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < LONGEST_SENTENCE


def resolves(store: Store, content: bytes) -> bool:
    """Whether ``tiny@1`` still resolves with this for its ``prm.json``; it raises nothing but its own errors."""
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


@pytest.mark.parametrize("value", odd_json.VALUES, ids=lambda value: value[:20])
def test_an_odd_value_anywhere_in_a_rich_recipe_is_refused_or_written_as_it_was(
    published: Checkpoint, value: str
) -> None:
    good = json.loads(published.manifest.to_json()) | RICH
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


def mutated(good: bytes) -> SearchStrategy[bytes]:
    """``good`` with a few stretches of bytes replaced, removed or repeated, or cut off."""

    @st.composite
    def changed(draw: DrawFn) -> bytes:
        content = bytearray(good)
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, len(content)))
            end = draw(st.integers(start, min(len(content), start + 20)))
            content[start:end] = draw(st.one_of(st.binary(max_size=8), st.just(bytes(content[start:end]) * 2)))
        return bytes(content)

    return st.one_of(changed(), st.integers(0, len(good) - 1).map(lambda end: good[:end]))


FLOATS = ["F32", "F64", "F16", "BF16", "F8_E4M3", "F6_E2M3", "F4"]
DTYPES: list[Any] = [*FLOATS, "I64", "U8", "BOOL", "C64", "F31", "f32", "", None, 1]
SIZES: list[Any] = [-1, 0, 1, 3, HIDDEN, 64, 65, 128, 2**31, 2**63, 2**64, 2**70, 1.0, "1", None]
WHOLE = {"dtype": "F32", "shape": [1, HIDDEN], "data_offsets": [0, 64]}
sizes = st.sampled_from(SIZES)
described = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(DTYPES),
        "shape": st.one_of(st.sampled_from([[1, HIDDEN], [1], []]), st.lists(sizes, max_size=3), sizes),
        "data_offsets": st.one_of(st.sampled_from([[0, 64], [0, 128], [64, 68]]), st.lists(sizes, max_size=3)),
    }
)
entries: SearchStrategy[Any] = st.one_of(st.just(WHOLE), described, st.sampled_from([{}, None, [], "F32"]))
names = st.sampled_from(["score.weight", "score.bias", "model.norm.weight", "__metadata__", ""])
headers = st.one_of(
    st.just({"score.weight": WHOLE}).map(json.dumps),
    st.dictionaries(names, entries).map(json.dumps),
    odd_json.nests,
    st.sampled_from(odd_json.VALUES),
)


@st.composite
def safetensors(draw: DrawFn) -> bytes:
    """A header that promises something, and a file that may hold something else."""
    header = draw(headers).encode()
    length = draw(st.one_of(st.just(len(header)), st.integers(0, 2 * len(header)), st.integers(0, 2**64 - 1)))
    data = draw(st.one_of(st.sampled_from([0, 64, 68, 128]).map(bytes), st.binary(max_size=256)))
    return length.to_bytes(8, "little") + header + data


@fuzzed(1500)
@given(content=st.one_of(st.binary(), safetensors()))
def test_a_head_of_random_bytes_is_loaded_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    try:
        head = linear_head(tmp_path)
    except CheckpointCorrupt as error:
        assert_one_sentence(error)
    else:
        assert head.weight_H.shape == (HIDDEN,)
        assert head.bias is None or head.bias.shape == (1,)


def linear_head(path: Path) -> LinearHead:
    head = layered_head(path, RECIPE, HIDDEN)
    assert isinstance(head, LinearHead)
    return head


def write_head(path: Path, **tensors: tuple[str, list[int], int]) -> None:
    """Tensors of a dtype, a shape and so many bytes, one after the other."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[f"score.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


@pytest.mark.parametrize(("dtype", "size"), [("I64", 8), ("I32", 4), ("U16", 2), ("U8", 1), ("BOOL", 1), ("C64", 8)])
def test_a_head_without_fractions_is_refused(tmp_path: Path, dtype: str, size: int) -> None:
    write_head(tmp_path, weight=("F32", [1, HIDDEN], 4 * HIDDEN), bias=("F32", [1], 4))
    assert linear_head(tmp_path).bias is not None
    write_head(tmp_path, weight=(dtype, [1, HIDDEN], size * HIDDEN))
    with pytest.raises(CheckpointCorrupt, match="floating point"):
        linear_head(tmp_path)


@pytest.mark.parametrize("shape", [[], [0], [3], [1, 1]])
def test_a_bias_of_another_shape_is_refused(tmp_path: Path, shape: list[int]) -> None:
    write_head(tmp_path, weight=("F32", [1, HIDDEN], 4 * HIDDEN), bias=("F32", shape, 4 * math.prod(shape)))
    with pytest.raises(CheckpointCorrupt, match="shape"):
        linear_head(tmp_path)


def loads(checkpoint: Checkpoint, content: bytes) -> bool:
    """Whether the model loads with this for its weights; it raises nothing but its own errors."""
    (checkpoint.path / "model.safetensors").write_bytes(content)
    try:
        load_model(checkpoint, "cpu", "auto")
    except CheckpointCorrupt as error:
        assert_one_sentence(error)
        return False
    return True


@fuzzed(150)
@given(content=st.one_of(st.binary(), safetensors()))
def test_a_model_of_random_bytes_is_refused(published: Checkpoint, content: bytes) -> None:
    assert not loads(published, content)


@pytest.mark.parametrize("header", odd_json.VALUES, ids=lambda header: header[:20])
def test_a_model_whose_header_is_an_odd_value_is_refused(published: Checkpoint, header: str) -> None:
    assert not loads(published, len(header).to_bytes(8, "little") + header.encode())


def split(safetensors: bytes) -> tuple[bytes, bytes]:
    """The header, as JSON, and the data behind it."""
    end = 8 + int.from_bytes(safetensors[:8], "little")
    return safetensors[8:end], safetensors[end:]


@fuzzed(200)
@given(data=st.data())
def test_a_model_with_changed_bytes_in_its_header_is_loaded_or_refused(
    published: Checkpoint, source: Path, data: st.DataObject
) -> None:
    header, tensors = split((source / "model.safetensors").read_bytes())
    loads(published, data.draw(mutated(len(header).to_bytes(8, "little") + header)) + tensors)


@fuzzed(150)
@given(data=st.data(), entry=entries)
def test_a_model_with_an_odd_tensor_is_loaded_or_refused(
    published: Checkpoint, source: Path, data: st.DataObject, entry: Any
) -> None:
    header, tensors = split((source / "model.safetensors").read_bytes())
    by_name = json.loads(header)
    name = data.draw(st.sampled_from(sorted(by_name)))
    if entry and isinstance(entry, dict):  # only one thing is odd: more would hide each other
        key = data.draw(st.sampled_from(sorted(entry)))
        by_name[name][key] = entry[key]
    else:
        by_name[name] = entry
    changed = json.dumps(by_name).encode()
    loads(published, len(changed).to_bytes(8, "little") + changed + tensors)


def test_an_unchanged_model_loads(published: Checkpoint, source: Path) -> None:
    assert loads(published, (source / "model.safetensors").read_bytes())
