"""Token ids of a history and one candidate after it, without a copy of the history."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload


class Continued(Sequence[int]):
    """Two lists of token ids as one sequence. Candidates of one state share the first list.

    Many candidates after a long history would otherwise hold the history many times until they are computed.
    """

    __slots__ = ("_added", "_history")

    def __init__(self, history: list[int], added: list[int]) -> None:
        self._history = history
        self._added = added

    def __len__(self) -> int:
        return len(self._history) + len(self._added)

    def __iter__(self) -> Iterator[int]:
        return chain(self._history, self._added)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        before = len(self._history)
        if isinstance(index, int):
            at = range(len(self))[index]
            return self._history[at] if at < before else self._added[at - before]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return [*self][index]
        return self._history[start:stop] + self._added[max(0, start - before) : max(0, stop - before)]
