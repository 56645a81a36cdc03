"""A key is bound to all that a score depends on, and to nothing else."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.score_cache.keys import Key, KeyScope, checkpoint_prefix, namespace_prefix

DIGEST = "sha256:" + "0123456789abcdef" * 4
tokens = st.lists(st.integers(0, 2**32 - 1), max_size=12)


def scope(namespace: str = "test", digest: str = DIGEST, render_version: int = 1, dtype: str = "float32") -> KeyScope:
    return KeyScope(namespace, digest, render_version, dtype)


def key(token_ids: list[int], task_len: int = 0, of: KeyScope | None = None) -> Key:
    return (of or scope()).begin(token_ids[:task_len]).extend(token_ids[task_len:]).key


@given(token_ids=tokens, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_a_key_depends_on_the_tokens_and_not_on_how_they_were_fed(token_ids: list[int], cuts: list[int]) -> None:
    chain = scope().begin([])
    for start, end in pairwise([0, *sorted(cuts), len(token_ids) + 12]):
        chain.extend(token_ids[start:end])
    assert chain.key == key(token_ids)


@given(left=tokens, right=tokens)
def test_other_tokens_have_another_key(left: list[int], right: list[int]) -> None:
    assert (key(left) == key(right)) == (left == right)


@pytest.mark.parametrize(
    "other",
    [
        scope(namespace="test2"),
        scope(digest=DIGEST[:-1] + "0"),
        scope(digest="sha256:f" + DIGEST[8:]),
        scope(render_version=2),
        scope(dtype="bfloat16"),
        scope(dtype="float32+int8"),
    ],
)
def test_what_changes_a_score_changes_the_key(other: KeyScope) -> None:
    assert key([1, 2, 3], 1, scope()) != key([1, 2, 3], 1, other)


@given(task=tokens, rest=st.lists(tokens, min_size=1, max_size=4))
def test_a_trajectory_that_grew_by_a_step_has_one_new_key(task: list[int], rest: list[list[int]]) -> None:
    def keys(steps: list[list[int]]) -> list[Key]:
        chain = scope().begin(task)
        return [chain.extend([*step, 7]).key for step in steps]

    assert keys(rest)[:-1] == keys(rest[:-1])
    assert len(set(keys(rest))) == len(rest)


@given(task=tokens, left=tokens, right=tokens)
def test_the_keys_of_one_task_share_a_hash_tag(task: list[int], left: list[int], right: list[int]) -> None:
    tags = [re.search(rb"\{(.+)\}", key(task + rest, len(task))) for rest in (left, right)]
    assert tags[0]
    assert tags[1]
    assert tags[0][1] == tags[1][1]


def test_a_branch_grows_apart() -> None:
    chain = scope().begin([1]).extend([2])
    left, right = chain.branch().extend([3]), chain.branch().extend([4])
    assert left.key == key([1, 2, 3], 1)
    assert right.key == key([1, 2, 4], 1)
    assert chain.key == key([1, 2], 1)


def test_keys_can_be_found_by_namespace_and_checkpoint() -> None:
    found = key([1, 2], 1)
    assert found.startswith(checkpoint_prefix("test", DIGEST))
    assert found.startswith(namespace_prefix("test"))
    assert re.fullmatch(rb"test:0123456789abcdef:\{[\w-]{11}\}:[\w-]{22}", found)


def test_keys_are_the_same_in_every_process_and_release() -> None:
    """A change here makes every replica forget what it knew: raise ``FORMAT`` if that is meant."""
    assert key([1, 2, 3], 1) == b"test:0123456789abcdef:{8E5Fui0haIU}:03hPLupplnkbpCzsPLrMYQ"
