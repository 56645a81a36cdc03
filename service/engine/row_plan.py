"""Plans forwards: pending nodes, depth first, cut into rows, and what each part of a row attends to. Knows no torch.

In depth-first order all that is computed below a node is one contiguous range of its row. So no mask is needed:
every segment attends to itself causally, and each context below it (a run of held KV, or an earlier segment of the
same row) is attended to in full by one range of queries.

    tree  A (held) ─┬─ B ─┬─ C        row       B  C  D  E
                    │     └─ D        segments  [ ][ ][ ][ ]       causal, each its own
                    └─ E              contexts  A: B..E    B: C..D
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from service.engine.prefix_cache import Node, V


@dataclass(frozen=True, slots=True)
class Segment(Generic[V]):
    """Tokens ``start`` to ``end`` of a node's edge, computed from token ``row_start`` of the row on."""

    node: Node[V]
    start: int
    end: int
    row_start: int

    @property
    def row_end(self) -> int:
        """One past its place in the row."""
        return self.row_start + self.end - self.start


@dataclass(frozen=True, slots=True)
class Held(Generic[V]):
    """A run of KV from earlier rows, from the root down: (node, how many of its tokens).

    Queries ``row_start:row_end`` of the row read it.
    """

    run: tuple[tuple[Node[V], int], ...]
    row_start: int
    row_end: int


@dataclass(frozen=True, slots=True)
class Inner:
    """Keys ``start:end`` of this row, read by its queries ``row_start:row_end``."""

    start: int
    end: int
    row_start: int
    row_end: int


@dataclass(frozen=True, slots=True)
class Row(Generic[V]):
    segments: tuple[Segment[V], ...]
    held: tuple[Held[V], ...]
    inner: tuple[Inner, ...]

    @property
    def tokens(self) -> int:
        return self.segments[-1].row_end

    def token_ids(self) -> list[int]:
        return [token for part in self.segments for token in part.node.token_ids[part.start : part.end]]

    def positions(self) -> list[int]:
        return [
            position
            for part in self.segments
            for position in range(part.node.start + part.start, part.node.start + part.end)
        ]


def plan_rows(pending: Sequence[Node[V]], row_tokens: int) -> list[Row[V]]:
    """Rows of at most ``row_tokens`` new tokens; a longer node is cut, each part after what it needs."""
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
    """Contexts are found per segment on its path and grow while the next segments read them too."""
    in_row = {segment.node: segment for segment in segments}
    held: dict[Node[V], Held[V]] = {}
    inner: dict[Node[V], Inner] = {}
    for segment in segments:
        path = segment.node.path()
        for node in path:
            above = in_row.get(node)
            stored = len(node.token_ids) if above is None else above.start
            if stored:
                first = held[node].row_start if node in held else segment.row_start
                held[node] = Held(((node, stored),), first, segment.row_end)
            if above is not None and above is not segment:
                first = inner[node].row_start if node in inner else segment.row_start
                inner[node] = Inner(above.row_start, above.row_end, first, segment.row_end)
    return Row(tuple(segments), tuple(_join_runs(list(held.values()))), tuple(inner.values()))


def _join_runs(contexts: list[Held[V]]) -> list[Held[V]]:
    """One context for each run of nodes that the same queries read; ``contexts`` has every parent before its child."""
    joined: list[Held[V]] = []
    for context in contexts:
        above = joined[-1] if joined else None
        if above and (above.row_start, above.row_end) == (context.row_start, context.row_end):
            joined[-1] = Held(above.run + context.run, context.row_start, context.row_end)
        else:
            joined.append(context)
    return joined
