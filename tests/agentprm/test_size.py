"""JSON values are counted before a body is parsed, and text counts for nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import TooLong
from agentprm.wire.size import MAX_OBJECTS, MAX_VALUES, JSONSize

texts = st.text(alphabet='\\",{}[]a\né')
documents = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


def counted(value: Any) -> tuple[int, int]:
    """Containers and commas of a document, and its objects."""
    if not isinstance(value, dict | list):
        return 0, 0
    inner = [counted(part) for part in (value.values() if isinstance(value, dict) else value)]
    values = 1 + max(0, len(value) - 1) + sum(values for values, _ in inner)
    return values, isinstance(value, dict) + sum(objects for _, objects in inner)


@given(documents, st.booleans(), st.lists(st.integers(1, 9), min_size=1))
def test_a_document_is_counted_wherever_it_is_cut(document: Any, ascii_only: bool, cuts: list[int]) -> None:
    body, size, start = json.dumps(document, ensure_ascii=ascii_only).encode(), JSONSize(), 0
    while start < len(body):
        step = cuts[start % len(cuts)]
        size.add(body[start : start + step])
        start += step
    assert (size.values, size.objects) == counted(document)


@pytest.mark.parametrize("text", ["," * 1_000_000, "{" * 1_000_000, '\\"' * 500_000 + "[" * 500_000, "\\\\" * 500_000])
def test_text_counts_for_nothing_however_long_it_is(text: str) -> None:
    size = JSONSize()
    size.add(f'{{"a":"{text}"}}'.encode())
    assert (size.values, size.objects) == (1, 1)


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b"[" + b"0," * MAX_VALUES + b"0]", MAX_VALUES),
        (b"[" * (MAX_VALUES + 1), MAX_VALUES),
        (b"[" + b"{}," * MAX_OBJECTS + b"{}]", MAX_OBJECTS),
        (b'{"a":' * (MAX_OBJECTS + 1), MAX_OBJECTS),
    ],
)
def test_too_many_values_or_objects_are_refused(body: bytes, limit: int) -> None:
    with pytest.raises(TooLong, match=f"more than {limit} JSON") as caught:
        JSONSize().add(body)
    assert caught.value.details == {"limit": limit}


def test_as_many_as_are_allowed_pass() -> None:
    JSONSize().add(b"[" + b"0," * (MAX_VALUES - 1) + b"0]")
    JSONSize().add(b"[" + b"{}," * (MAX_OBJECTS - 1) + b"{}]")


def test_texts_of_their_own_are_counted_together_and_a_broken_one_changes_no_other() -> None:
    size = JSONSize()
    for text in (b'{"a": "', b"[1, 2]", b'"\\', b"[1, 2]"):
        size.add_whole(text)
    assert (size.values, size.objects) == (5, 1)
