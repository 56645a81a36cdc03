"""A prefix cache whose values are visible: each token with its depth, so that a wrong split or value shows."""

from service.engine.prefix_cache import Node, PrefixCache

FakeKV = tuple[tuple[int, int], ...]
"""The value of a node: (depth, token) for each of its tokens."""
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
    """Returns the prefixes that end inside the node or with it."""
    return {prefix for prefix in prefixes(prefix_of(node)) if len(prefix) > node.start}
