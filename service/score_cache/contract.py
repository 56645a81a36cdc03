"""What a score cache is, and what it tells about itself. Memory and Redis are the two that there are."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.score_cache.keys import Key


class ScoreCache(Protocol):
    """Raw scores by key. A failure inside is a miss, never an error for the caller."""

    async def get(self, keys: Sequence[Key]) -> dict[Key, float]:
        """What is known of these."""
        ...

    def put(self, scores: Mapping[Key, float]) -> None:
        """Remembers finite scores, soon and perhaps not all. Does not wait."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Stores what waits to be stored, as far as that goes quickly."""
        ...


class Watcher(Protocol):
    """Who counts what happens in a cache; ``tier`` is memory or redis, ``operation`` read or write."""

    def on_lookup(self, tier: str, *, hits: int, misses: int, skipped: int = 0) -> None: ...

    def on_operation(self, operation: str, seconds: float) -> None: ...

    def on_cache_error(self, operation: str, kind: str) -> None: ...

    def on_written(self, *, stored: int = 0, dropped: int = 0) -> None: ...


ERROR_KINDS = ("timeout", "connection", "auth", "loading", "readonly", "oom", "protocol", "value", "other")
"""``value``: what lies under a key is no score of ours. ``protocol``: what answers does not speak Redis."""
