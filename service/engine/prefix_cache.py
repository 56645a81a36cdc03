"""Which token prefixes are known, and which of them are in use: a radix tree over token ids.

Knows no torch: a value is whatever the engine keeps for the tokens of one edge (their KV tensors). Before a forward the
engine inserts every sequence of the batch. What is missing becomes pending nodes, each token once however many
sequences share it, so a history shared by candidates, by requests or with an earlier step is one and the same case.

    root
     └─ [5 6 7]   locks 2  held       a history that two sequences of this batch share
         ├─ [8 9] locks 1  held       ends one of them: nothing to compute
         ├─ [3]   locks 1  pending    ends the other: to be computed by this forward
         └─ [4 4] locks 0  idle       of an earlier batch: the only node here that may be evicted

The life of a batch: insert each sequence, compute ``pending()``, fill, release each leaf, evict. After a failure the
releases alone undo it. One thread may call anything, other threads only ``match``.
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
    """An edge of the tree and what is known about its tokens. Only the cache changes it."""

    token_ids: tuple[int, ...]
    """Of this edge alone; empty for the root."""
    start: int
    """Depth of its first token in the sequence."""
    parent: "Node[V] | None" = field(repr=False)
    children: "dict[int, Node[V]]" = field(default_factory=dict, repr=False)
    """By their first token."""
    value: V | None = field(default=None, repr=False)
    """None while pending, and for the root."""
    size: int = 0
    """Bytes of the value."""
    locks: int = 0
    """Inserted and not yet released sequences that end here or below. The root counts none: it is never evicted."""

    @property
    def end(self) -> int:
        return self.start + len(self.token_ids)

    def path(self) -> "list[Node[V]]":
        """The nodes whose edges join to this sequence: from below the root down to this one."""
        nodes = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixCacheStats(Protocol):
    """How much is held."""

    @property
    def max_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def joined_bytes(self) -> int: ...
    @property
    def evicted_bytes(self) -> int: ...


class PrefixCache(Generic[V]):
    """Holds values up to ``max_bytes`` between batches; more while a batch has them locked.

    Args:
        max_bytes: what ``evict`` shrinks to. With 0 sequences still share within a batch and nothing outlives it.
        size: the bytes a value owns.
        split: parts a value after so many tokens, into halves that each own their bytes.
    """

    def __init__(self, max_bytes: int, *, size: Callable[[V], int], split: Callable[[V, int], tuple[V, V]]) -> None:
        self.max_bytes = max_bytes
        self.root: Node[V] = Node((), 0, None)
        self.used_bytes = 0
        self.joined_bytes = 0
        """Held elsewhere out of the same ``max_bytes``: what the owner keeps that is made of the values."""
        self.evicted_bytes = 0
        self.evicted_tokens = 0
        self._size = size
        self._split_value = split
        # A dictionary for its order: nodes without a value, all of them locked.
        self._pending: dict[Node[V], None] = {}
        # Held nodes that nobody locks, least recently used first, and children before parents: a node is unlocked no
        # later than its parent and a release goes upwards. So the first is always a leaf, and evicting needs no search.
        self._idle: OrderedDict[Node[V], None] = OrderedDict()

    def match(self, token_ids: Sequence[int]) -> int:
        """cached_len: how many tokens from the start have their values held.

        Changes nothing and iterates over no dictionary, so that any thread may call it. Beside a running insert or
        evict it is an estimate.
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
        """What the next forward must compute, depth first.

        What is pending below a node, held or pending, is one contiguous range. Siblings come in the order of the
        sequences that asked for them first.
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
        """Makes a pending node held; parents before children, as ``pending`` lists them."""
        assert node in self._pending, "filled twice, or released before"
        assert node.parent not in self._pending, "filled before its parent"
        node.size = self._size(value)
        node.value = value
        self.used_bytes += node.size
        del self._pending[node]

    def release(self, leaf: Node[V]) -> None:
        """Undoes one insert's lock and makes its path the most recently used.

        A node that was never filled goes with its last lock.
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
        """Drops the least recently used nodes until the values fit ``max_bytes`` or all that is left is locked."""
        while self._idle and self.used_bytes + self.joined_bytes > self.max_bytes:
            node = self._drop_least_recent()
            self.evicted_bytes += node.size
            self.evicted_tokens += len(node.token_ids)

    def clear(self) -> None:
        """Drops everything that is not locked. The eviction counters do not count it."""
        while self._idle:
            self._drop_least_recent()

    def check(self) -> None:
        """Asserts every invariant of the tree; costs a walk through all of it."""
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
        assert all(node.locks for node in self._pending), "pending, and nobody waits for it"
        assert self._idle.keys() == {node for node in held if not node.locks}
        order = {node: index for index, node in enumerate(self._idle)}
        assert all(order[node] < order.get(node.parent or root, len(order)) for node in order), "would orphan a child"
        assert all(node.size == held.get(node, 0) for node in nodes)
        assert self.used_bytes == sum(held.values())

    def _nodes(self) -> list[Node[V]]:
        nodes = [self.root]
        for node in nodes:  # grows while it is read
            nodes.extend(node.children.values())
        return nodes

    def _split(self, node: Node[V], at: int) -> Node[V]:
        """Puts a new node above ``node`` that takes its first tokens; returns it.

        The old node stays the lower half: whoever inserted a sequence that ends there still holds its last node.
        The new one is in no order of use: the insert that splits locks it at once.
        """
        parent = node.parent
        assert parent is not None, "the root has no tokens to split"
        head = Node(node.token_ids[:at], node.start, parent, locks=node.locks)
        if node.value is None:
            self._pending[head] = None
        else:
            # The callback may fail (it allocates): nothing has changed before it returns.
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


def _common_len(edge: tuple[int, ...], ahead: tuple[int, ...]) -> int:
    """How many tokens two tuples share from the start; ``ahead`` is not the longer one."""
    if edge == ahead:
        return len(edge)
    return next(compress(count(), map(ne, edge, ahead)), len(ahead))


def extend_lens(token_ids: Sequence[Sequence[int]], match: Callable[[Sequence[int]], int]) -> list[int]:
    """Tokens to be computed for each sequence after those before it; ``match`` tells how many of one are held.

    An estimate: it sees what a sequence shares with the one before it and with what is held, so it is too high for one
    whose relatives stand further away.
    """
    lens: list[int] = []
    before: Sequence[int] = ()
    shared = held = 0
    for ids in token_ids:
        shared = shared_len(before, ids, shared)
        if shared <= held:  # else it leaves what is held where the one before left it
            held = match(ids)
        lens.append(len(ids) - max(shared, held))
        before = ids
    return lens


def shared_len(left: Sequence[int], right: Sequence[int], guess: int) -> int:
    """How many tokens two sequences share from the start; quick where ``guess``, their siblings' length, is right."""
    if guess and left[:guess] == right[:guess] and left[guess : guess + 1] != right[guess : guess + 1]:
        return guess
    return next(compress(count(), map(ne, left, right)), min(len(left), len(right)))
