"""The score cache in memory: the scores used last, up to a number of them."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import isfinite

from service.score_cache.contract import CacheObserver
from service.score_cache.keys import Key


class MemoryTier:
    """Keeps up to ``max_items`` scores and evicts the least recently used; 0 keeps none."""

    def __init__(self, max_items: int, observer: CacheObserver) -> None:
        self.max_items = max_items
        self._observer = observer
        self._scores: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    async def get(self, keys: Sequence[Key]) -> dict[Key, float]:
        known = {}
        for key in keys:
            if (raw := self._scores.get(key)) is not None:
                self._scores.move_to_end(key)
                known[key] = raw
        if self.max_items:
            hits = sum(key in known for key in keys)
            self._observer.on_lookup("memory", hits=hits, misses=len(keys) - hits)
        return known

    def put(self, scores: Mapping[Key, float]) -> None:
        for key, raw in scores.items():
            if isfinite(raw):
                self._scores[key] = raw
                self._scores.move_to_end(key)
        while len(self._scores) > self.max_items:
            self._scores.popitem(last=False)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass
