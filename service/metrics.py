"""Every metric of the service, with its buckets. The only module that knows Prometheus.

All label sets exist from the start, so that a counter's first increment is seen as an increment.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from agentprm.errors import DeadlineExceeded, NotReady, Overloaded, RateLimited, RequestError, TooLong
from service.batcher import Batch
from service.score_cache.contract import ERROR_KINDS

SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
TOKENS: Final = tuple(float(2**power) for power in range(4, 18))
SEQUENCES: Final = tuple(float(2**power) for power in range(11))
CODES: Final = (200, 401, 403, 404, 405, 413, 422, 429, 499, 500, 503, 504)
REJECTIONS: Final = tuple(error.code for error in (TooLong, Overloaded, RateLimited, NotReady, DeadlineExceeded))
SOURCES: Final = ("computed", "prefix_cache", "score_cache")
OTHER_ROUTE: Final = "other"
LOOKUP_RESULTS: Final = ("hit", "miss", "skipped")
OPERATIONS: Final = ("read", "write")


class _Evicted(Collector):
    """Read from the prefix caches at a scrape: the library's own counters cannot be."""

    def __init__(self) -> None:
        self.bytes: dict[str, Callable[[], int]] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "agentprm_prefix_cache_evicted_bytes", "Bytes of keys and values dropped for others.", labels=["model"]
        )
        for model, evicted in self.bytes.items():
            family.add_metric([model], evicted())
        yield family


class Metrics:
    """One registry per application; nothing global, so several applications can live in one process."""

    def __init__(self, routes: Sequence[str]) -> None:
        self._routes = frozenset(routes)
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("agentprm_requests", "Requests answered.", ["route", "code"], registry=registry)
        self._duration = Histogram(
            "agentprm_request_duration_seconds",
            "From the first byte of a request to the last of its reply.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._rejected = Counter(
            "agentprm_rejected", "Requests refused though their form was right.", ["reason"], registry=registry
        )
        self._tokens = Counter(
            "agentprm_tokens",
            "Tokens of scored sequences: computed, their keys and values held, or their scores known.",
            ["model", "source"],
            registry=registry,
        )
        self._batch_tokens = Histogram(
            "agentprm_batch_tokens", "Tokens computed in a forward.", ["model"], buckets=TOKENS, registry=registry
        )
        self._batch_sequences = Histogram(
            "agentprm_batch_sequences", "Sequences of a forward.", ["model"], buckets=SEQUENCES, registry=registry
        )
        self._forward = Histogram(
            "agentprm_forward_duration_seconds", "One forward.", ["model"], buckets=SECONDS, registry=registry
        )
        self._queue_tokens = Gauge(
            "agentprm_queue_tokens", "Tokens still to be computed for what waits.", ["model"], registry=registry
        )
        self._queue_limit = Gauge(
            "agentprm_queue_limit_tokens", "Tokens that may wait before requests are refused.", registry=registry
        )
        self._prefix_cache_bytes = Gauge(
            "agentprm_prefix_cache_bytes", "Bytes of keys and values held.", ["model"], registry=registry
        )
        self._prefix_cache_limit = Gauge(
            "agentprm_prefix_cache_limit_bytes",
            "Bytes of keys and values that may be held between batches.",
            ["model"],
            registry=registry,
        )
        self._declare_score_cache(registry)
        self._evicted = _Evicted()
        registry.register(self._evicted)
        self._model_info = Gauge(
            "agentprm_model_info", "1 per loaded model.", ["model", "digest", "device", "dtype"], registry=registry
        )
        self._ready = Gauge("agentprm_ready", "1 while /ready answers 200.", registry=registry)
        self._create_label_sets(routes)

    def _declare_score_cache(self, registry: CollectorRegistry) -> None:
        self._cache_items = Gauge("agentprm_score_cache_items", "Scores held in the process.", registry=registry)
        self._cache_lookups = Counter(
            "agentprm_score_cache_lookups",
            "Scores looked for. Redis is asked for what memory lacks; skipped: it was not asked, being unwell.",
            ["tier", "result"],
            registry=registry,
        )
        self._cache_duration = Histogram(
            "agentprm_score_cache_operation_duration_seconds",
            "One round trip to Redis as its caller waited for it; nobody waits for writes.",
            ["operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self._cache_errors = Counter(
            "agentprm_score_cache_errors",
            "Round trips to Redis that failed, probes included, and values that are no scores.",
            ["operation", "kind"],
            registry=registry,
        )
        self._cache_writes = Counter(
            "agentprm_score_cache_writes",
            "Scores written to Redis, or dropped because too many waited.",
            ["result"],
            registry=registry,
        )
        self._cache_unwritten = Gauge(
            "agentprm_score_cache_unwritten", "Scores that wait to be written to Redis.", registry=registry
        )
        self._cache_breaker = Gauge(
            "agentprm_score_cache_breaker_state",
            "0 closed, 1 half open (a probe runs), 2 open (Redis is not asked).",
            ["operation"],
            registry=registry,
        )

    def _create_label_sets(self, routes: Sequence[str]) -> None:
        for route in (*routes, OTHER_ROUTE):
            self._duration.labels(route)
            for code in CODES:
                self._requests.labels(route, code)
        for reason in REJECTIONS:
            self._rejected.labels(reason)
        self._create_cache_label_sets()

    def _create_cache_label_sets(self) -> None:
        for result in LOOKUP_RESULTS:
            self._cache_lookups.labels("redis", result)
            if result != "skipped":
                self._cache_lookups.labels("memory", result)
        for operation in OPERATIONS:
            self._cache_duration.labels(operation)
            self._cache_breaker.labels(operation)
            for kind in ERROR_KINDS:
                self._cache_errors.labels(operation, kind)
        for result in ("stored", "dropped"):
            self._cache_writes.labels(result)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def add_model(self, model: str) -> None:
        """Creates the label sets of a model, before anything is counted for it."""
        self._evicted.bytes[model] = int  # int() is 0
        for metric in self._of_models():
            metric.labels(model)
        for source in SOURCES:
            self._tokens.labels(model, source)

    def remove_model(self, model: str) -> None:
        """The end of a model's series, once nothing is counted for it any more."""
        self._evicted.bytes.pop(model, None)
        for metric in self._of_models():
            metric.remove(model)
        self._tokens.remove_by_labels({"model": model})
        self._model_info.remove_by_labels({"model": model})

    def _of_models(self) -> tuple[Gauge | Histogram, ...]:
        return (
            self._batch_tokens,
            self._batch_sequences,
            self._forward,
            self._queue_tokens,
            self._prefix_cache_bytes,
            self._prefix_cache_limit,
        )

    def on_request(self, path: str, code: int, seconds: float) -> None:
        route = path if path in self._routes else OTHER_ROUTE
        self._requests.labels(route, code).inc()
        self._duration.labels(route).observe(seconds)

    def on_error(self, error: RequestError) -> None:
        if error.code in REJECTIONS:
            self._rejected.labels(error.code).inc()

    def on_batch(self, model: str, batch: Batch) -> None:
        self._tokens.labels(model, "computed").inc(batch.computed)
        self._tokens.labels(model, "prefix_cache").inc(batch.reused)
        self._batch_tokens.labels(model).observe(batch.computed)
        self._batch_sequences.labels(model).observe(batch.sequences)
        self._forward.labels(model).observe(batch.seconds)

    def on_cached(self, model: str, tokens: int) -> None:
        self._tokens.labels(model, "score_cache").inc(tokens)

    def on_lookup(self, tier: str, *, hits: int, misses: int, skipped: int = 0) -> None:
        for result, count in zip(LOOKUP_RESULTS, (hits, misses, skipped), strict=True):
            if count:
                self._cache_lookups.labels(tier, result).inc(count)

    def on_operation(self, operation: str, seconds: float) -> None:
        self._cache_duration.labels(operation).observe(seconds)

    def on_cache_error(self, operation: str, kind: str) -> None:
        self._cache_errors.labels(operation, kind).inc()

    def on_written(self, *, stored: int = 0, dropped: int = 0) -> None:
        self._cache_writes.labels("stored").inc(stored)
        self._cache_writes.labels("dropped").inc(dropped)

    def watch_memory_tier(self, items: Callable[[], int]) -> None:
        self._cache_items.set_function(items)

    def watch_redis_tier(self, unwritten: Callable[[], int], states: Callable[[], Mapping[str, int]]) -> None:
        self._cache_unwritten.set_function(unwritten)
        for operation in OPERATIONS:
            self._cache_breaker.labels(operation).set_function(partial(_state_of, states, operation))

    def watch_queue(self, model: str, queued_tokens: Callable[[], int]) -> None:
        self._queue_tokens.labels(model).set_function(queued_tokens)

    def watch_prefix_cache(
        self, model: str, *, used: Callable[[], int], evicted: Callable[[], int], limit: int
    ) -> None:
        self._prefix_cache_bytes.labels(model).set_function(used)
        self._prefix_cache_limit.labels(model).set(limit)
        self._evicted.bytes[model] = evicted

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def show_model(self, model: str, digest: str, device: str, dtype: str) -> None:
        self._model_info.labels(model, digest, device, dtype).set(1)

    def show_queue_limit(self, tokens: int) -> None:
        self._queue_limit.set(tokens)


def _state_of(states: Callable[[], Mapping[str, int]], operation: str) -> float:
    return states()[operation]
