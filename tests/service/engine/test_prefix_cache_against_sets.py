"""The prefix cache against a model of it made of sets, over random sequences of operations."""

from collections.abc import Iterator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.engine.prefix_cache import Node
from tests.service.engine.fake_kv import FakeKV, Prefix, computed, fake_cache, own_prefixes, prefix_of, prefixes

SEQUENCES = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
SHARES = st.sampled_from([0.0, 0.5, 1.0, 1.0])


class AgainstSets(RuleBasedStateMachine):
    """Runs the cache and its model in parallel: held prefixes, sequences in use, and the last release of each."""

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
        """Fills all pending nodes, or as many as a forward computed before it failed."""
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
        """Evicts from the model too: the unlocked leaf that was released longest ago, until the rest fits."""
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
