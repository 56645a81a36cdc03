import sys
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.engine.prefix_cache import Node, PrefixCache

# What the engine would keep, made visible: each token with its depth. A wrong split or a misplaced value shows.
FakeKV = tuple[tuple[int, int], ...]
Prefix = tuple[int, ...]


def split(value: FakeKV, at: int) -> tuple[FakeKV, FakeKV]:
    return value[:at], value[at:]


def fake_cache(max_bytes: int = 1000) -> PrefixCache[FakeKV]:
    return PrefixCache(max_bytes, size=len, split=split)


def computed(node: Node[FakeKV]) -> FakeKV:
    return tuple(zip(range(node.start, node.end), node.token_ids, strict=True))


def prefix_of(node: Node[FakeKV]) -> Prefix:
    return tuple(token for above in node.path() for token in above.token_ids)


def prefixes(tokens: Prefix) -> set[Prefix]:
    return {tokens[:length] for length in range(1, len(tokens) + 1)}


def own_prefixes(node: Node[FakeKV]) -> set[Prefix]:
    """Those that end inside the node or with it."""
    return {prefix for prefix in prefixes(prefix_of(node)) if len(prefix) > node.start}


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


def test_a_step_that_comes_later_computes_only_its_own_tokens() -> None:
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


def test_halves_that_weigh_more_than_the_whole_are_counted_as_they_are() -> None:
    cache: PrefixCache[FakeKV] = PrefixCache(1000, size=lambda value: len(value) + 10, split=split)
    run_batch(cache, [1, 2, 3, 4])
    insert_all(cache, [1, 2])
    assert cache.used_bytes == 24


def test_what_is_pending_below_a_held_node_is_contiguous() -> None:
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


def test_the_path_released_longest_ago_is_evicted_first() -> None:
    cache = fake_cache(max_bytes=4)
    run_batch(cache, [1, 1], [2, 2])
    run_batch(cache, [1, 1])
    run_batch(cache, [3, 3])
    cache.evict()
    assert [cache.match(tokens) for tokens in ([1, 1], [2, 2], [3, 3])] == [2, 0, 2]
    assert (cache.evicted_tokens, cache.evicted_bytes) == (2, 2)


def test_what_is_held_beside_the_tree_counts_against_the_same_bytes() -> None:
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


def test_a_failed_batch_leaves_no_trace() -> None:
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


def test_misuse_by_the_engine_is_noticed() -> None:
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


SEQUENCES = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
SHARES = st.sampled_from([0.0, 0.5, 1.0, 1.0])


class AgainstSets(RuleBasedStateMachine):
    """The cache beside its definition: the set of held prefixes, the sequences in use, when a prefix was released."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = fake_cache(max_bytes=8)
        self.held: set[Prefix] = set()
        self.users: list[tuple[Node[FakeKV], Prefix]] = []
        self.released_at: dict[Prefix, int] = {}
        self.releases = 0
        self.evicted = 0

    def locks(self, prefix: Prefix) -> int:
        return sum(prefix == tokens[: len(prefix)] for _, tokens in self.users)

    def nodes(self) -> Iterator[Node[FakeKV]]:
        stack = [*self.cache.root.children.values()]
        while stack:
            yield (node := stack.pop())
            stack.extend(node.children.values())

    @rule(tokens=SEQUENCES)
    def insert(self, tokens: Prefix) -> None:
        self.users.append((self.cache.insert(tokens), tokens))

    @rule(share=SHARES)
    def fill(self, share: float) -> None:
        """All of what is pending, or as much as a forward got done before it failed."""
        pending = self.cache.pending()
        for node in pending[: round(share * len(pending))]:
            self.held |= own_prefixes(node)
            self.cache.fill(node, computed(node))

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.release_user(data.draw(st.integers(0, len(self.users) - 1)))

    def release_user(self, index: int) -> None:
        leaf, tokens = self.users.pop(index)
        self.cache.release(leaf)
        self.releases += 1
        self.released_at.update(dict.fromkeys(prefixes(tokens), self.releases))

    @rule(batch=st.lists(SEQUENCES, min_size=1, max_size=4), share=SHARES)
    def run_batch(self, batch: list[Prefix], share: float) -> None:
        for tokens in batch:
            self.insert(tokens)
        self.fill(share)
        for _ in batch:
            self.release_user(-1)

    @rule()
    def evict(self) -> None:
        """By the definition: of the unlocked leaves the one released longest ago, until the rest fits."""
        parts = {prefix_of(node): len(node.token_ids) for node in self.nodes() if node.value is not None}
        while sum(parts.values()) > self.cache.max_bytes:
            leaves = [p for p in parts if not self.locks(p) and not any(p in prefixes(q) - {q} for q in parts)]
            if not leaves:
                break
            oldest = min(leaves, key=self.released_at.__getitem__)
            tokens = parts.pop(oldest)
            self.held -= {oldest[: len(oldest) - up] for up in range(tokens)}
            self.evicted += tokens
        self.cache.evict()
        assert self.users or self.cache.used_bytes <= self.cache.max_bytes

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.held = {prefix for prefix in self.held if self.locks(prefix)}

    @rule(tokens=SEQUENCES)
    def match(self, tokens: Prefix) -> None:
        assert self.cache.match(tokens) == len(prefixes(tokens) & self.held)

    @invariant()
    def the_tree_is_what_the_sets_say(self) -> None:
        self.cache.check()
        waiting = set[Prefix]().union(*(prefixes(tokens) for _, tokens in self.users)) - self.held
        seen: set[Prefix] = set()
        for node in self.nodes():
            tokens = own_prefixes(node)
            assert tokens <= (waiting if node.value is None else self.held)
            assert node.value is None or node.value == computed(node)
            assert node.locks == self.locks(prefix_of(node))
            seen |= tokens
        assert seen == waiting | self.held
        assert all(prefix_of(leaf) == tokens for leaf, tokens in self.users), "a leaf that lost its end"
        assert self.cache.used_bytes == len(self.held)
        assert self.cache.evicted_tokens == self.cache.evicted_bytes == self.evicted

    @invariant()
    def pending_is_complete_and_depth_first(self) -> None:
        pending = [prefix_of(node) for node in self.cache.pending()]
        assert sorted(pending) == sorted(prefix_of(node) for node in self.nodes() if node.value is None)
        for above in {prefix_of(node) for node in self.nodes()}:
            below = [index for index, prefix in enumerate(pending) if above in prefixes(prefix)]
            assert not below or below == list(range(below[0], below[-1] + 1)), "not contiguous"
            assert above not in pending or pending[below[0]] == above, "a node before its ancestor"


TestAgainstSets = AgainstSets.TestCase
TestAgainstSets.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
