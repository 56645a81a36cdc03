"""A radix tree over token ids: which prefixes are cached and which of them are in use.

Knows no torch: a value is whatever the engine caches for the tokens of one edge (their KV tensors). Before a forward
the engine inserts every sequence of the batch. Missing tokens become pending nodes, each token once however many
sequences share it. So one mechanism serves candidates, other requests and later steps that share a history.

    root
     └─ [5 6 7]   locks 2  held       a history that two sequences of this batch share
         ├─ [8 9] locks 1  held       the end of the first sequence: nothing to compute
         ├─ [3]   locks 1  pending    the end of the second sequence: this forward computes it
         └─ [4 4] locks 0  idle       left by an earlier batch: the only node here that may be evicted

A batch runs in this order: insert each sequence, compute ``pending()``, fill, release each leaf, evict. After a failure
the releases alone undo the inserts. One thread calls everything; other threads call ``match`` only.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne
from typing import Generic, Protocol, TypeVar

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Node(Generic[V]):
    """An edge of the tree and the value of its tokens. Only the cache changes it."""

    token_ids: tuple[int, ...]
    """Tokens of this edge alone; empty for the root."""
    start: int
    """Depth of its first token in the sequence."""
    parent: "Node[V] | None" = field(repr=False)
    children: "dict[int, Node[V]]" = field(default_factory=dict, repr=False)
    """Child nodes, keyed by the first token of their edge."""
    value: V | None = field(default=None, repr=False)
    """The cached value; None while pending, and for the root."""
    size: int = 0
    """Bytes of the value and the node; 0 while pending."""
    locks: int = 0
    """Inserted and not yet released sequences that end here or below. The root has none: it is never evicted."""

    @property
    def end(self) -> int:
        """Depth one past its last token."""
        return self.start + len(self.token_ids)

    def path(self) -> "list[Node[V]]":
        """Nodes from just below the root down to this one; their edges joined are the sequence."""
        nodes = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixCacheStats(Protocol):
    """Bytes of a prefix cache, for the metrics; any thread may read them."""

    @property
    def max_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def joined_bytes(self) -> int: ...
    @property
    def evicted_bytes(self) -> int: ...


class PrefixCache(Generic[V]):
    """Keeps values up to ``max_bytes`` between batches; more while a batch has them locked.

    Args:
        max_bytes: bytes to which ``evict`` shrinks the cache. With 0, sequences share prefixes only within a batch.
        size: returns the bytes of a value and of its node.
        split: divides a value after the given number of tokens, into halves that each own their bytes.
    """

    def __init__(self, max_bytes: int, *, size: Callable[[V], int], split: Callable[[V, int], tuple[V, V]]) -> None:
        self.max_bytes = max_bytes
        self.root: Node[V] = Node((), 0, None)
        self.used_bytes = 0
        self.joined_bytes = 0
        """Bytes of joined copies of the values, which the owner keeps. They count against ``max_bytes``."""
        self.evicted_bytes = 0
        self.evicted_tokens = 0
        self._size = size
        self._split_value = split
        # Nodes without a value, all of them locked; a dictionary because it keeps its order.
        self._pending: dict[Node[V], None] = {}
        # Unlocked nodes with a value, least recently used first and children before parents: a node is unlocked no
        # later than its parent, and a release goes upwards. So the first is always a leaf, and evict need not search.
        self._idle: OrderedDict[Node[V], None] = OrderedDict()

    def match(self, token_ids: Sequence[int]) -> int:
        """Returns how many tokens from the start of the sequence are cached.

        Any thread may call this: it changes nothing and iterates over no dictionary. While another thread inserts or
        evicts, the result is an estimate.
        """
        tokens = tuple(token_ids)
        node, depth = self.root, 0
        while depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None or child.value is None:
                break
            edge = child.token_ids
            common = _common_len(edge, tokens[depth : depth + len(edge)])
            depth += common
            if common < len(edge):
                break
            node = child
        return depth

    def insert(self, token_ids: Sequence[int]) -> Node[V]:
        """Locks the path of a sequence and returns its last node, which ends where the sequence ends.

        Nodes are split where sequences part or end, and at most one pending node is added. The returned node keeps
        its end while it is locked, whatever is inserted later.

        Raises:
            ValueError: the sequence is empty.
        """
        if not token_ids:
            raise ValueError("an empty sequence has no last node")
        tokens = tuple(token_ids)
        node, depth = self.root, 0
        while depth < len(tokens) and (child := node.children.get(tokens[depth])) is not None:
            common = _common_len(child.token_ids, tokens[depth : depth + len(child.token_ids)])
            node = child if common == len(child.token_ids) else self._split(child, common)
            depth += common
        if depth < len(tokens):
            node = self._add_pending(node, tokens[depth:])
        for locked in node.path():
            locked.locks += 1
            self._idle.pop(locked, None)
        return node

    def pending(self) -> list[Node[V]]:
        """Returns the nodes that the next forward must compute, depth first.

        The pending nodes below any node are one contiguous range of the list. Siblings come in the order in which
        sequences first inserted them.
        """
        branches: defaultdict[Node[V], dict[Node[V], None]] = defaultdict(dict)
        for missing in self._pending:
            node = missing
            while node.parent is not None and node not in branches[node.parent]:
                branches[node.parent][node] = None
                node = node.parent
        order, stack = [], [self.root]
        while stack:
            node = stack.pop()
            if node in self._pending:
                order.append(node)
            stack.extend(reversed(branches[node]))
        return order

    def fill(self, node: Node[V], value: V) -> None:
        """Gives a pending node its value. Parents come before children, as ``pending`` lists them."""
        assert node in self._pending, "filled twice, or released before"
        assert node.parent not in self._pending, "filled before its parent"
        node.size = self._size(value)
        node.value = value
        self.used_bytes += node.size
        del self._pending[node]

    def release(self, leaf: Node[V]) -> None:
        """Undoes the lock of one insert and makes its path the most recently used.

        A node that was never filled is removed with its last lock.
        """
        assert leaf.locks > 0, "released more often than inserted"
        for node in reversed(leaf.path()):
            node.locks -= 1
            if node.locks:
                continue
            if node in self._pending:
                del self._pending[node]
                _detach(node)
            else:
                self._idle[node] = None

    def evict(self) -> None:
        """Drops the least recently used nodes until the rest fits ``max_bytes`` or only locked nodes are left."""
        while self._idle and self.used_bytes + self.joined_bytes > self.max_bytes:
            node = self._drop_least_recent()
            self.evicted_bytes += node.size
            self.evicted_tokens += len(node.token_ids)

    def clear(self) -> None:
        """Drops every node that is not locked. The eviction counters do not count it."""
        while self._idle:
            self._drop_least_recent()

    def check(self) -> None:
        """Asserts every invariant of the tree; walks through all of it."""
        root = self.root
        assert (root.parent, root.token_ids, root.value, root.locks) == (None, (), None, 0)
        nodes = self._nodes()
        for node in nodes:
            for first, child in node.children.items():
                assert child.parent is node
                assert child.token_ids[0] == first, "the key is not the first token of the edge"
                assert child.start == node.end
                assert child.value is None or node is root or node.value is not None, "held below a pending node"
            assert node is root or node.locks >= sum(child.locks for child in node.children.values())
        held = {node: self._size(node.value) for node in nodes if node.value is not None}
        assert self._pending.keys() == {*nodes} - {root, *held}
        assert all(node.locks for node in self._pending), "pending, but not locked"
        assert self._idle.keys() == {node for node in held if not node.locks}
        order = {node: index for index, node in enumerate(self._idle)}
        assert all(order[node] < order.get(node.parent or root, len(order)) for node in order), "would orphan a child"
        assert all(node.size == held.get(node, 0) for node in nodes)
        assert self.used_bytes == sum(held.values())

    def _nodes(self) -> list[Node[V]]:
        nodes = [self.root]
        for node in nodes:  # the list grows during the loop
            nodes.extend(node.children.values())
        return nodes

    def _split(self, node: Node[V], at: int) -> Node[V]:
        """Puts a new node above ``node`` that takes its first ``at`` tokens, and returns the new node.

        The old node stays the lower half, so sequences that end there keep their last node. The new node is not added
        to the idle nodes, because the insert that splits locks it at once.
        """
        parent = node.parent
        assert parent is not None, "the root has no tokens to split"
        head = Node(node.token_ids[:at], node.start, parent, locks=node.locks)
        if node.value is None:
            self._pending[head] = None
        else:
            # The callback allocates and may fail, so nothing is changed before it returns.
            head.value, tail = self._split_value(node.value, at)
            head.size, tail_size = self._size(head.value), self._size(tail)
            self.used_bytes += head.size + tail_size - node.size
            node.value, node.size = tail, tail_size
        parent.children[node.token_ids[0]] = head
        head.children[node.token_ids[at]] = node
        node.token_ids, node.start, node.parent = node.token_ids[at:], node.start + at, head
        return head

    def _add_pending(self, parent: Node[V], token_ids: tuple[int, ...]) -> Node[V]:
        node = Node(token_ids, parent.end, parent)
        parent.children[token_ids[0]] = node
        self._pending[node] = None
        return node

    def _drop_least_recent(self) -> Node[V]:
        node, _ = self._idle.popitem(last=False)
        self.used_bytes -= node.size
        _detach(node)
        return node


def _detach(node: Node[V]) -> None:
    assert node.parent is not None, "the root stays"
    assert not node.children, "its children would leave with it"
    del node.parent.children[node.token_ids[0]]


def _common_len(edge: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    """Returns how many tokens the two share from the start; ``tokens`` is no longer than ``edge``."""
    if edge == tokens:
        return len(edge)
    return next(compress(count(), map(ne, edge, tokens)), len(tokens))


def extend_lens(token_ids: Sequence[Sequence[int]], match: Callable[[Sequence[int]], int]) -> list[int]:
    """Returns how many tokens of each sequence are still to be computed, if they are scored in this order.

    ``match`` returns how many tokens from the start of a sequence are cached. The result is an estimate: a sequence is
    compared with its predecessor and the cache only, so it is too high if the sequence shares more with an earlier one.
    """
    lens: list[int] = []
    previous: Sequence[int] = ()
    shared = cached = 0
    for ids in token_ids:
        shared = shared_len(previous, ids, shared)
        if shared <= cached:  # else both leave the cached path at the same place
            cached = match(ids)
        lens.append(len(ids) - max(shared, cached))
        previous = ids
    return lens


def shared_len(left: Sequence[int], right: Sequence[int], guess: int) -> int:
    """Returns how many tokens two sequences share from the start; fast if ``guess`` is that number."""
    if guess and left[:guess] == right[:guess] and left[guess : guess + 1] != right[guess : guess + 1]:
        return guess
    return next(compress(count(), map(ne, left, right)), min(len(left), len(right)))
