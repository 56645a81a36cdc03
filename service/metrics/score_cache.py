"""The score cache: lookups by tier, and the health of Redis. Implements the ``CacheObserver`` of both tiers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from service.metrics.buckets import SECONDS
from service.metrics.families import Families
from service.score_cache.contract import ERROR_KINDS

RESULTS: Final = ("hit", "miss", "skipped")
OPERATIONS: Final = ("read", "write")


class ScoreCacheMetrics:
    def __init__(self, families: Families) -> None:
        self._items = families.gauge("agentprm_score_cache_items", "Scores in the memory of the process.")
        self._lookups = families.counter(
            "agentprm_score_cache_lookups",
            "Scores looked up in memory, and in Redis those that memory lacks; skipped: the breaker is open.",
            ["tier", "result"],
        )
        self._duration = families.histogram(
            "agentprm_score_cache_operation_duration_seconds",
            "Duration of one round trip to Redis: read (a request waits for it), write (in the background).",
            ["operation"],
            buckets=SECONDS,
        )
        self._errors = families.counter(
            "agentprm_score_cache_errors",
            "Failed round trips to Redis, probes included, and values that are no scores.",
            ["operation", "kind"],
        )
        self._writes = families.counter(
            "agentprm_score_cache_writes",
            "Scores written to Redis, or dropped because too many were waiting.",
            ["result"],
        )
        self._unwritten = families.gauge("agentprm_score_cache_unwritten", "Scores waiting to be written to Redis.")
        self._breaker = families.gauge(
            "agentprm_score_cache_breaker_state",
            "0 closed, 1 half open (a probe runs), 2 open (Redis is not used).",
            ["operation"],
        )
        self._create_label_sets()

    def _create_label_sets(self) -> None:
        for result in RESULTS:
            self._lookups.labels("redis", result)
            if result != "skipped":
                self._lookups.labels("memory", result)
        for operation in OPERATIONS:
            self._duration.labels(operation)
            self._breaker.labels(operation)
            for kind in ERROR_KINDS:
                self._errors.labels(operation, kind)
        for result in ("stored", "dropped"):
            self._writes.labels(result)

    def on_lookup(self, tier: str, *, hits: int, misses: int, skipped: int = 0) -> None:
        for result, count in zip(RESULTS, (hits, misses, skipped), strict=True):
            if count:
                self._lookups.labels(tier, result).inc(count)

    def on_operation(self, operation: str, seconds: float) -> None:
        self._duration.labels(operation).observe(seconds)

    def on_cache_error(self, operation: str, kind: str) -> None:
        self._errors.labels(operation, kind).inc()

    def on_written(self, *, stored: int = 0, dropped: int = 0) -> None:
        self._writes.labels("stored").inc(stored)
        self._writes.labels("dropped").inc(dropped)

    def watch_memory_tier(self, items: Callable[[], int]) -> None:
        self._items.set_function(items)

    def watch_redis_tier(self, unwritten: Callable[[], int], states: Callable[[], Mapping[str, int]]) -> None:
        self._unwritten.set_function(unwritten)
        for operation in OPERATIONS:
            self._breaker.labels(operation).set_function(partial(_state_of, states, operation))


def _state_of(states: Callable[[], Mapping[str, int]], operation: str) -> float:
    return states()[operation]
