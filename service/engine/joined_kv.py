"""Joins runs of KV into one tensor and keeps the copies: when a history grows by a step, only the step is copied.

Axes: L layers, K key/value heads, T tokens, D head size.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True, eq=False)
class _Copy:
    """A buffer [L, 2, K, T, D] with room to grow, and the pieces that its first tokens were copied from."""

    buffer: Tensor
    pieces: list["weakref.ref[Tensor]"]
    """Weak, so that evicted pieces are freed. A dead reference never equals a new tensor at the same address."""

    def common(self, pieces: Sequence[Tensor]) -> int:
        """Returns the number of leading pieces that the copy shares with ``pieces``."""
        for number, (copied, piece) in enumerate(zip(self.pieces, pieces, strict=False)):
            if copied() is not piece:
                return number
        return min(len(self.pieces), len(pieces))

    def may_become(self, pieces: Sequence[Tensor]) -> bool:
        """Returns whether ``pieces`` may replace the copy's own: a prefix of them, or a start before evicted ones."""
        common = self.common(pieces)
        return common == len(pieces) or (common > 0 and all(copied() is None for copied in self.pieces[common:]))


class JoinedKV:
    """Joins immutable pieces of KV and keeps the most recently used copies. One thread calls it.

    Args:
        context_length: tokens of the longest sequence; no buffer has room for more.
    """

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        self._copies: list[_Copy] = []  # least recently used first

    @property
    def bytes(self) -> int:
        """Bytes of all buffers, room to grow included."""
        return sum(copy.buffer.nbytes for copy in self._copies)

    def join(self, pieces: Sequence[Tensor], max_bytes: int) -> Tensor:
        """Joins pieces [L, 2, K, t, D] and returns a view [L, 2, K, T, D].

        The view is valid until pieces with the same beginning are joined. A copy of more than ``max_bytes`` gets no
        room to grow, because it will not be kept.
        """
        if len(pieces) == 1:
            return pieces[0]
        tokens = sum(piece.shape[3] for piece in pieces)
        fitting = [copy for copy in self._copies if copy.may_become(pieces)]
        copy = max(fitting, key=lambda copy: copy.common(pieces), default=None)
        if copy is None:
            copy = _Copy(_buffer(pieces[0], self._room(pieces[0], tokens, max_bytes)), [])
        else:
            self._copies.remove(copy)
        known = copy.common(pieces)
        at = sum(piece.shape[3] for piece in pieces[:known])
        if copy.buffer.shape[3] < tokens:
            longer = _buffer(pieces[0], self._room(pieces[0], tokens, max_bytes))
            longer[:, :, :, :at] = copy.buffer[:, :, :, :at]
            copy.buffer = longer
        if known < len(pieces):
            del copy.pieces[known:]
        for piece in pieces[known:]:
            copy.buffer[:, :, :, at : at + piece.shape[3]] = piece
            at += piece.shape[3]
            copy.pieces.append(weakref.ref(piece))
        self._copies.append(copy)
        return copy.buffer[:, :, :, :tokens]

    def trim(self, max_bytes: int) -> None:
        """Drops copies of evicted pieces, then the least recently used copies until the rest fits ``max_bytes``."""
        self._copies = [copy for copy in self._copies if copy.pieces[0]() is not None]
        while self._copies and self.bytes > max_bytes:
            self._copies.pop(0)

    def clear(self) -> None:
        """Drops all copies."""
        self._copies.clear()

    def _room(self, piece: Tensor, tokens: int, max_bytes: int) -> int:
        """Returns the tokens of a new buffer: 1.5 times ``tokens``, so a token is copied about three times in all."""
        room = max(tokens, min(tokens * 3 // 2, self._context_length))
        return room if room * piece.nbytes // piece.shape[3] <= max_bytes else tokens


def _buffer(like: Tensor, tokens: int) -> Tensor:
    return like.new_empty((*like.shape[:3], tokens, like.shape[4]))
