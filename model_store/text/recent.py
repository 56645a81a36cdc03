"""What was computed lately, within a bound of memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key; the least recently used are dropped. Safe to use from several threads.

    Args:
        most: the bound on all sizes together.
        size: the size of a key with its value.
    """

    def __init__(self, most: int, size: Callable[[K, V], int]) -> None:
        self._most = most
        self._size_of = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size(self) -> int:
        return self._size

    def find(self, keys: Sequence[K]) -> list[V | None]:
        with self._lock:
            found = [self._values.get(key) for key in keys]
            for key, known in zip(keys, found, strict=True):
                if known is not None:
                    self._values.move_to_end(key)
        return found

    def keep(self, new: Mapping[K, V]) -> None:
        with self._lock:
            for key, value in new.items():
                if key not in self._values:
                    self._values[key] = value
                    self._size += self._size_of(key, value)
            while self._size > self._most:
                self._size -= self._size_of(*self._values.popitem(last=False))
