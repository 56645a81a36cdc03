"""Runs of KV joined to one tensor, and kept: when a history has grown by a step, only that step is copied.

Axes: L layers, K key/value heads, T tokens, D head size.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True, eq=False)
class _Copy:
    """A buffer [L, 2, K, T, D] with room to grow, and what its first tokens were copied from."""

    buffer: Tensor
    pieces: list["weakref.ref[Tensor]"]
    """Weak, so that what the prefix cache evicts is gone; and a dead one equals nothing that is new at its address."""

    def common(self, pieces: Sequence[Tensor]) -> int:
        """How many of ``pieces`` it begins with."""
        for number, (copied, piece) in enumerate(zip(self.pieces, pieces, strict=False)):
            if copied() is not piece:
                return number
        return min(len(self.pieces), len(pieces))

    def may_become(self, pieces: Sequence[Tensor]) -> bool:
        """Whether it begins as they do and loses nothing to them that is held: many histories begin alike."""
        known = self.common(pieces)
        return known == len(pieces) or (known > 0 and all(copied() is None for copied in self.pieces[known:]))


class JoinedKV:
    """Joins pieces of KV that nobody changes; keeps the copies that were used last. Called from one thread."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._copies: list[_Copy] = []  # the least recently used first

    @property
    def bytes(self) -> int:
        """Of all buffers, with their room to grow."""
        return sum(copy.buffer.nbytes for copy in self._copies)

    def join(self, pieces: Sequence[Tensor], max_bytes: int) -> Tensor:
        """Pieces [L, 2, K, t, D] as one [L, 2, K, T, D]: a view, right until one that begins with the same is joined.

        A copy that would take more than ``max_bytes`` gets no room to grow: it will not be kept.
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
        """Drops copies of what is no longer held, and then the least recently used until the rest fits."""
        self._copies = [copy for copy in self._copies if copy.pieces[0]() is not None]
        while self._copies and self.bytes > max_bytes:
            self._copies.pop(0)

    def clear(self) -> None:
        self._copies.clear()

    def _room(self, piece: Tensor, tokens: int, max_bytes: int) -> int:
        """Half as much again: buffers are then replaced so seldom that a token is copied about three times in all."""
        room = max(tokens, min(tokens * 3 // 2, self._longest))
        return room if room * piece.nbytes // piece.shape[3] <= max_bytes else tokens


def _buffer(like: Tensor, tokens: int) -> Tensor:
    return like.new_empty((*like.shape[:3], tokens, like.shape[4]))
