"""Any content of a checkpoint's weights is loaded or refused in one sentence; nothing else is raised."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from model_store.errors import CheckpointCorrupt
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint
from model_store.network.head_loading import layered_head
from model_store.network.heads import LinearHead
from model_store.network.model import load_model
from tests import odd_json
from tests.model_store.fuzzing import assert_one_sentence, fuzzed, mutated

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of an example that fails
HIDDEN = 16
RECIPE = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")
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
    """A safetensors file whose header may disagree with its data."""
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
    """A header of consecutive tensors with a dtype, a shape and a number of bytes each."""
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
    """Returns whether the model loads with these weights; only errors of checkpoints may be raised."""
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
