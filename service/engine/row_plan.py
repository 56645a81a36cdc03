"""Plans forwards: cuts pending nodes, depth first, into rows, and finds what each part attends to. Knows no torch.

In depth-first order, all tokens of a row below one node are one contiguous range. So no mask is needed: every segment
attends to itself causally, and one range of queries attends to each context in full. A context is a run of cached KV,
or an earlier segment of the same row.

    tree  A (held) ─┬─ B ─┬─ C        row       B  C  D  E
                    │     └─ D        segments  [ ][ ][ ][ ]       each attends to itself, causally
                    └─ E              contexts  A: read by B to E    B: read by C and D
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from service.engine.prefix_cache import Node, V


@dataclass(frozen=True, slots=True)
class Segment(Generic[V]):
    """Tokens ``start:end`` of a node's edge, computed at ``row_start:row_end`` of the row."""

    node: Node[V]
    start: int
    end: int
    row_start: int

    @property
    def row_end(self) -> int:
        return self.row_start + self.end - self.start


@dataclass(frozen=True, slots=True)
class HeldContext(Generic[V]):
    """A run of cached KV, read by queries ``row_start:row_end`` of the row."""

    run: tuple[tuple[Node[V], int], ...]
    """Nodes from the root down, each with the number of its tokens that earlier rows have computed."""
    row_start: int
    row_end: int


@dataclass(frozen=True, slots=True)
class InnerContext:
    """Keys ``start:end`` of this row, read by its queries ``row_start:row_end``."""

    start: int
    end: int
    row_start: int
    row_end: int


@dataclass(frozen=True, slots=True)
class Row(Generic[V]):
    """One forward: its segments, in order and without gaps, and the contexts that they attend to."""

    segments: tuple[Segment[V], ...]
    held: tuple[HeldContext[V], ...]
    inner: tuple[InnerContext, ...]

    @property
    def tokens(self) -> int:
        """Number of new tokens."""
        return self.segments[-1].row_end

    def token_ids(self) -> list[int]:
        return [token for part in self.segments for token in part.node.token_ids[part.start : part.end]]

    def positions(self) -> list[int]:
        """Returns the depth of each token in its sequence."""
        return [
            position
            for part in self.segments
            for position in range(part.node.start + part.start, part.node.start + part.end)
        ]


def plan_rows(pending: Sequence[Node[V]], row_tokens: int) -> list[Row[V]]:
    """Returns rows of at most ``row_tokens`` new tokens, each after those that it reads; longer nodes are cut.

    Args:
        pending: nodes, depth first, as ``PrefixCache.pending`` lists them.
        row_tokens: tokens of every row but the last.
    """
    rows: list[list[Segment[V]]] = [[]]
    room = row_tokens
    for node in pending:
        start = 0
        while start < len(node.token_ids):
            if not room:
                rows.append([])
                room = row_tokens
            end = min(len(node.token_ids), start + room)
            rows[-1].append(Segment(node, start, end, row_start=row_tokens - room))
            room -= end - start
            start = end
    return [_with_contexts(segments) for segments in rows if segments]


def _with_contexts(segments: list[Segment[V]]) -> Row[V]:
    """Collects the contexts on the path of each segment; a context grows while the next segments read it too."""
    in_row = {segment.node: segment for segment in segments}
    held: dict[Node[V], HeldContext[V]] = {}
    inner: dict[Node[V], InnerContext] = {}
    for segment in segments:
        path = segment.node.path()
        for node in path:
            above = in_row.get(node)
            computed = len(node.token_ids) if above is None else above.start
            if computed:
                row_start = held[node].row_start if node in held else segment.row_start
                held[node] = HeldContext(((node, computed),), row_start, segment.row_end)
            if above is not None and above is not segment:
                row_start = inner[node].row_start if node in inner else segment.row_start
                inner[node] = InnerContext(above.row_start, above.row_end, row_start, segment.row_end)
    return Row(tuple(segments), tuple(_join_runs(list(held.values()))), tuple(inner.values()))


def _join_runs(contexts: list[HeldContext[V]]) -> list[HeldContext[V]]:
    """Joins neighbouring contexts that the same queries read; every parent comes before its child."""
    joined: list[HeldContext[V]] = []
    for context in contexts:
        above = joined[-1] if joined else None
        if above and (above.row_start, above.row_end) == (context.row_start, context.row_end):
            joined[-1] = HeldContext(above.run + context.run, context.row_start, context.row_end)
        else:
            joined.append(context)
    return joined
