"""Planned rows against the definition of attention: a token reads its own sequence up to itself, each token once.

A token stands here as its prefix, itself last. This is unique in a tree and shows what the token must read.
"""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.prefix_cache import Node, PrefixCache
from service.engine.row_plan import HeldContext, InnerContext, Row, Segment, plan_rows

Token = tuple[int, ...]
Batch = list[tuple[int, ...]]

BATCHES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), max_size=6)


def tree(held: Sequence[Sequence[int]], requested: Sequence[Sequence[int]]) -> list[Node[str]]:
    """Returns the pending nodes when ``requested`` is inserted after ``held`` was computed."""
    cache: PrefixCache[str] = PrefixCache(1000, size=len, split=lambda value, _: (value, value))
    for tokens in held:
        cache.insert(tokens)
    for node in cache.pending():
        cache.fill(node, "held")
    for tokens in requested:
        cache.insert(tokens)
    return cache.pending()


def tokens_of(node: Node[str], start: int = 0, end: int | None = None) -> list[Token]:
    prefix = tuple(token for above in node.path() for token in above.token_ids)
    ends = range(node.start + 1, node.end + 1)[start:end]
    return [prefix[:length] for length in ends]


def tokens_in(row: Row[str]) -> list[Token]:
    return [token for part in row.segments for token in tokens_of(part.node, part.start, part.end)]


def read_by(position: int, row: Row[str]) -> list[Token]:
    """Returns every token that the query at a position of the row attends to, as often as it does."""
    here = tokens_in(row)
    own = [here[part.row_start : position + 1] for part in row.segments if part.row_start <= position < part.row_end]
    held = [
        tokens_of(node, 0, count)
        for context in row.held
        for node, count in context.run
        if context.row_start <= position < context.row_end
    ]
    inner = [
        here[context.start : context.end] for context in row.inner if context.row_start <= position < context.row_end
    ]
    return [token for part in own + held + inner for token in part]


def computed_before(rows: Sequence[Row[str]], node: Node[str]) -> int:
    """Returns how many tokens of a node have KV once ``rows`` are computed."""
    if node.value is not None:
        return len(node.token_ids)
    return sum(part.end - part.start for row in rows for part in row.segments if part.node is node)


@given(held=BATCHES, requested=BATCHES, row_tokens=st.integers(1, 20))
@settings(max_examples=400, deadline=None)
def test_every_token_reads_its_own_sequence_up_to_itself_each_token_once(
    held: Batch, requested: Batch, row_tokens: int
) -> None:
    for row in plan_rows(tree(held, requested), row_tokens):
        for position, token in enumerate(tokens_in(row)):
            path = [token[:length] for length in range(1, len(token) + 1)]
            assert sorted(read_by(position, row), key=len) == path


@given(held=BATCHES, requested=BATCHES, row_tokens=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_every_pending_token_is_computed_once_and_all_rows_but_the_last_are_full(
    held: Batch, requested: Batch, row_tokens: int
) -> None:
    pending = tree(held, requested)
    rows = plan_rows(pending, row_tokens)
    assert [token for row in rows for token in tokens_in(row)] == [
        token for node in pending for token in tokens_of(node)
    ]
    assert all(row.tokens == row_tokens for row in rows[:-1])
    assert all(0 < row.tokens <= row_tokens for row in rows[-1:])
    for row in rows:
        assert row.segments[0].row_start == 0
        assert all(left.row_end == right.row_start for left, right in pairwise(row.segments))


@given(held=BATCHES, requested=BATCHES, row_tokens=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_a_row_reads_only_tokens_of_earlier_rows_and_earlier_positions(
    held: Batch, requested: Batch, row_tokens: int
) -> None:
    rows = plan_rows(tree(held, requested), row_tokens)
    for index, row in enumerate(rows):
        for context in row.held:
            # Exactly as many: the engine joins all KV that it has of each node.
            assert all(count == computed_before(rows[:index], node) for node, count in context.run)
        assert all(inner.end <= inner.row_start for inner in row.inner)


@given(held=BATCHES, requested=BATCHES, row_tokens=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_a_row_carries_each_token_with_its_depth(held: Batch, requested: Batch, row_tokens: int) -> None:
    for row in plan_rows(tree(held, requested), row_tokens):
        assert row.token_ids() == [token[-1] for token in tokens_in(row)]
        assert row.positions() == [len(token) - 1 for token in tokens_in(row)]


@given(held=BATCHES, requested=BATCHES, row_tokens=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_held_nodes_that_the_same_queries_read_are_one_context(held: Batch, requested: Batch, row_tokens: int) -> None:
    for row in plan_rows(tree(held, requested), row_tokens):
        queries = [(context.row_start, context.row_end) for context in row.held]
        assert len(queries) == len({*queries})


def test_the_drawing_in_the_module_docstring_is_the_plan() -> None:
    a, b, c, d, e = [1, 1], [2, 2], [3], [4, 4], [5]
    nodes = tree([a], [a + b + c, a + b + d, a + e])
    (row,) = plan_rows(nodes, row_tokens=100)
    assert [list(part.node.token_ids) for part in row.segments] == [b, c, d, e]
    assert [(part.start, part.end, part.row_start) for part in row.segments] == [
        (0, 2, 0),
        (0, 1, 2),
        (0, 2, 3),
        (0, 1, 5),
    ]
    assert row.held == (HeldContext(((nodes[0].path()[0], 2),), row_start=0, row_end=6),)
    assert row.inner == (InnerContext(start=0, end=2, row_start=2, row_end=5),)


def test_a_node_longer_than_a_row_reads_its_own_beginning_as_a_held_context() -> None:
    (node,) = tree([], [[1, 2, 3, 4, 5]])
    rows = plan_rows([node], row_tokens=2)
    assert [row.segments for row in rows] == [
        (Segment(node, 0, 2, row_start=0),),
        (Segment(node, 2, 4, row_start=0),),
        (Segment(node, 4, 5, row_start=0),),
    ]
    assert [row.held for row in rows] == [(), (HeldContext(((node, 2),), 0, 2),), (HeldContext(((node, 4),), 0, 1),)]


def test_without_pending_nodes_there_is_no_row() -> None:
    assert plan_rows(tree([[1, 2]], [[1]]), row_tokens=8) == []
