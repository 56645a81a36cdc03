"""Two score caches, one in front of the other: hits of the second are copied to the first, new scores go to both."""

from collections.abc import Mapping, Sequence

from service.score_cache.contract import ScoreCache
from service.score_cache.keys import Key


class TieredCache:
    """Looks scores up in ``near`` first, then in ``far``, and copies what ``far`` had to ``near``."""

    def __init__(self, near: ScoreCache, far: ScoreCache) -> None:
        self._near = near
        self._far = far

    async def get(self, keys: Sequence[Key]) -> dict[Key, float]:
        known = await self._near.get(keys)
        if missing := [key for key in keys if key not in known]:
            found = await self._far.get(missing)
            self._near.put(found)
            known |= found
        return known

    def put(self, scores: Mapping[Key, float]) -> None:
        self._near.put(scores)
        self._far.put(scores)

    async def start(self) -> None:
        await self._near.start()
        await self._far.start()

    async def close(self) -> None:
        await self._near.close()
        await self._far.close()
