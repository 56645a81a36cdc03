"""Single cases of the prefix cache: sharing, splitting, eviction, failed batches and misuse."""

import sys
from collections.abc import Sequence

import pytest

from service.engine.prefix_cache import Node, PrefixCache
from tests.service.engine.fake_kv import FakeKV, computed, fake_cache, prefix_of, split


def fill_all(cache: PrefixCache[FakeKV]) -> None:
    for node in cache.pending():
        cache.fill(node, computed(node))


def insert_all(cache: PrefixCache[FakeKV], *sequences: Sequence[int]) -> list[Node[FakeKV]]:
    leaves = [cache.insert(tokens) for tokens in sequences]
    cache.check()
    return leaves


def release_all(cache: PrefixCache[FakeKV], leaves: list[Node[FakeKV]]) -> None:
    for leaf in leaves:
        cache.release(leaf)
        cache.check()


def run_batch(cache: PrefixCache[FakeKV], *sequences: Sequence[int]) -> None:
    leaves = insert_all(cache, *sequences)
    fill_all(cache)
    release_all(cache, leaves)


def test_a_later_step_computes_only_its_own_tokens() -> None:
    cache = fake_cache()
    run_batch(cache, [1, 2, 3])
    leaf = cache.insert([1, 2, 3, 4, 5])
    assert [(node.start, node.token_ids) for node in cache.pending()] == [(3, (4, 5))]
    assert [node.token_ids for node in leaf.path()] == [(1, 2, 3), (4, 5)]


def test_candidates_of_one_batch_compute_their_history_once() -> None:
    cache = fake_cache()
    insert_all(cache, [7, 7, 1], [7, 7, 2], [7, 7, 1])
    assert [node.token_ids for node in cache.pending()] == [(7, 7), (1,), (2,)]


def test_the_values_of_a_split_node_are_split_with_it() -> None:
    cache = fake_cache()
    run_batch(cache, [1, 2, 3, 4])
    leaf = cache.insert([1, 2, 3])
    assert cache.pending() == []
    assert leaf.value == ((0, 1), (1, 2), (2, 3))
    assert leaf.children[4].value == ((3, 4),)
    assert cache.used_bytes == 4


def test_halves_that_are_larger_than_the_whole_are_counted_as_they_are() -> None:
    cache: PrefixCache[FakeKV] = PrefixCache(1000, size=lambda value: len(value) + 10, split=split)
    run_batch(cache, [1, 2, 3, 4])
    insert_all(cache, [1, 2])
    assert cache.used_bytes == 24


def test_the_pending_nodes_below_a_held_node_are_contiguous() -> None:
    cache = fake_cache()
    run_batch(cache, [1, 1], [2, 2])
    insert_all(cache, [2, 2, 5], [1, 1, 5], [2, 2, 6], [3], [1, 1, 6, 6], [1, 1, 6])
    assert [prefix_of(node) for node in cache.pending()] == [
        *[(2, 2, 5), (2, 2, 6)],
        *[(1, 1, 5), (1, 1, 6), (1, 1, 6, 6)],
        (3,),
    ]


def test_both_halves_of_a_node_split_while_in_use_survive_an_eviction() -> None:
    cache = fake_cache(max_bytes=0)
    (user,) = insert_all(cache, [1, 2, 3, 4])
    fill_all(cache)
    (other,) = insert_all(cache, [1, 2])
    cache.release(other)
    cache.evict()
    assert cache.match([1, 2, 3, 4]) == 4
    cache.release(user)
    cache.evict()
    assert (cache.match([1, 2, 3, 4]), cache.used_bytes) == (0, 0)


def test_the_least_recently_released_path_is_evicted_first() -> None:
    cache = fake_cache(max_bytes=4)
    run_batch(cache, [1, 1], [2, 2])
    run_batch(cache, [1, 1])
    run_batch(cache, [3, 3])
    cache.evict()
    assert [cache.match(tokens) for tokens in ([1, 1], [2, 2], [3, 3])] == [2, 0, 2]
    assert (cache.evicted_tokens, cache.evicted_bytes) == (2, 2)


def test_joined_bytes_count_against_the_same_limit() -> None:
    cache = fake_cache(max_bytes=4)
    run_batch(cache, [1, 1], [2, 2])
    cache.joined_bytes = 1
    cache.evict()
    assert [cache.match(tokens) for tokens in ([1, 1], [2, 2])] == [0, 2]


def test_a_parent_is_evicted_by_its_own_last_use_and_not_with_its_last_child() -> None:
    cache = fake_cache(max_bytes=2)
    for tokens in ([1, 2, 3], [9], [1, 2]):
        run_batch(cache, tokens)
    cache.evict()
    assert [cache.match(tokens) for tokens in ([1, 2, 3], [9])] == [2, 0]


def test_a_failed_batch_leaves_the_cache_unchanged() -> None:
    cache = fake_cache()
    run_batch(cache, [1, 2, 3, 4], [5])
    before = [cache.match(tokens) for tokens in ([1, 2, 3, 4], [1, 2, 9, 9], [5, 6], [8, 8])]
    release_all(cache, insert_all(cache, [1, 2, 9, 9], [5, 6], [5], [8, 8, 8], [8, 8], [8, 8]))
    assert [cache.match(tokens) for tokens in ([1, 2, 3, 4], [1, 2, 9, 9], [5, 6], [8, 8])] == before
    assert (cache.pending(), cache.used_bytes) == ([], 5)


def test_a_split_that_fails_changes_nothing() -> None:
    def out_of_memory(value: FakeKV, at: int) -> tuple[FakeKV, FakeKV]:
        raise MemoryError

    cache: PrefixCache[FakeKV] = PrefixCache(1000, size=len, split=out_of_memory)
    run_batch(cache, [1, 2, 3])
    with pytest.raises(MemoryError):
        cache.insert([1, 2, 4])
    cache.check()
    assert (cache.match([1, 2, 3]), cache.used_bytes, cache.pending()) == (3, 3, [])


def test_a_path_of_more_nodes_than_the_recursion_limit_works() -> None:
    cache = fake_cache(max_bytes=0)
    tokens = list(range(sys.getrecursionlimit() + 100))
    leaves = [cache.insert(tokens[: index + 1]) for index in tokens]
    assert len(cache.pending()) == len(tokens)
    fill_all(cache)
    assert cache.match(tokens) == len(tokens)
    for leaf in leaves:
        cache.release(leaf)
    cache.check()
    cache.evict()
    assert cache.match(tokens) == 0


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="empty sequence"):
        fake_cache().insert([])


def test_a_wrong_order_of_calls_fails_an_assertion() -> None:
    cache = fake_cache()
    leaf, _ = insert_all(cache, [1, 2], [1])
    head = leaf.path()[0]
    with pytest.raises(AssertionError, match="before its parent"):
        cache.fill(leaf, computed(leaf))
    cache.fill(head, computed(head))
    with pytest.raises(AssertionError, match="filled twice"):
        cache.fill(head, computed(head))
    cache.release(leaf)
    with pytest.raises(AssertionError, match="released more often"):
        cache.release(leaf)
