"""The interface of a score cache and of its metrics. Memory and Redis implement the cache."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.score_cache.keys import Key


class ScoreCache(Protocol):
    """Raw scores by key. A failure inside the cache is a miss, never an error for the caller."""

    async def get(self, keys: Sequence[Key]) -> dict[Key, float]:
        """Returns the scores of those ``keys`` that are cached."""
        ...

    def put(self, scores: Mapping[Key, float]) -> None:
        """Stores finite scores without waiting; under load some may be dropped."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Stores the scores that still wait to be written, within a short time limit."""
        ...


class CacheObserver(Protocol):
    """Receives the counts and durations of a cache. ``tier`` is memory or redis, ``operation`` is read or write."""

    def on_lookup(self, tier: str, *, hits: int, misses: int, skipped: int = 0) -> None: ...

    def on_operation(self, operation: str, seconds: float) -> None: ...

    def on_cache_error(self, operation: str, kind: str) -> None: ...

    def on_written(self, *, stored: int = 0, dropped: int = 0) -> None: ...


ERROR_KINDS = ("timeout", "connection", "auth", "loading", "readonly", "oom", "protocol", "value", "other")
"""Kinds of errors. ``value``: a key holds something that is no score. ``protocol``: the server does not speak Redis."""
