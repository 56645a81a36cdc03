"""The queue, the forwards and the prefix cache of each model."""

from collections.abc import Callable
from typing import Final

from service.engine.contract import Workers
from service.engine.prefix_cache import PrefixCacheStats
from service.metrics.buckets import SECONDS, SEQUENCES, TOKENS
from service.metrics.families import MODEL, Families
from service.queue.batcher import Batcher
from service.queue.texts import TextQueue
from service.queue.work import Batch

SOURCES: Final = ("computed", "prefix_cache", "score_cache")


class EngineMetrics:
    def __init__(self, families: Families) -> None:
        self._tokens = families.counter(
            "agentprm_tokens",
            "Tokens of scored sequences: computed, reused from the prefix cache, or answered from the score cache.",
            [MODEL, "source"],
        )
        self._batch_tokens = families.histogram(
            "agentprm_batch_tokens", "Tokens computed in one forward.", [MODEL], buckets=TOKENS
        )
        self._batch_sequences = families.histogram(
            "agentprm_batch_sequences", "Sequences in one forward.", [MODEL], buckets=SEQUENCES
        )
        self._forward = families.histogram(
            "agentprm_forward_duration_seconds", "One forward.", [MODEL], buckets=SECONDS
        )
        self._padding = families.read_counter(
            "agentprm_padding_tokens", "Tokens computed only to pad rows; 0 for the prefix engine, which packs them."
        )
        self._declare_queue(families)
        self._declare_prefix_cache(families)
        self._declare_workers(families)

    def _declare_queue(self, families: Families) -> None:
        self._queue_tokens = families.gauge(
            "agentprm_queue_tokens", "Tokens still to be computed for waiting sequences.", [MODEL]
        )
        self._queue_sequences = families.gauge(
            "agentprm_queue_sequences", "Waiting sequences; for a judge, waiting calls.", [MODEL]
        )
        self._queue_limit = families.gauge(
            "agentprm_queue_limit_tokens", "Limit of the waiting tokens of one model; over it requests are refused."
        )

        self._text_characters = families.gauge(
            "agentprm_text_queue_characters", "Characters of requests that wait for the tokenizer or are in it."
        )

    def _declare_prefix_cache(self, families: Families) -> None:
        self._held = families.gauge(
            "agentprm_prefix_cache_bytes",
            "Bytes of the prefix cache: keys and values, joined copies, nodes and token ids.",
            [MODEL],
        )
        self._held_limit = families.gauge(
            "agentprm_prefix_cache_limit_bytes", "Limit of the prefix cache's bytes between batches.", [MODEL]
        )
        self._evicted = families.read_counter(
            "agentprm_prefix_cache_evicted_bytes", "Bytes evicted from the prefix cache."
        )

    def _declare_workers(self, families: Families) -> None:
        self._workers = families.gauge(
            "agentprm_workers",
            "Workers that run, and that are down. Both are 0 for a model in the service's own process.",
            [MODEL, "state"],
        )
        self._worker_restarts = families.read_counter(
            "agentprm_worker_restarts", "Times that a worker was started again after it had ended."
        )

    def add_model(self, model: str) -> None:
        for family in (self._batch_tokens, self._batch_sequences, self._forward):
            family.labels(model)
        for gauge in (self._queue_tokens, self._queue_sequences, self._held, self._held_limit):
            gauge.labels(model)
        for state in ("running", "down"):
            self._workers.labels(model, state)
        for counter in (self._padding, self._evicted, self._worker_restarts):
            counter.add_model(model)
        for source in SOURCES:
            self._tokens.labels(model, source)

    def count_batch(self, model: str, batch: Batch) -> None:
        self._tokens.labels(model, "computed").inc(batch.computed)
        self._tokens.labels(model, "prefix_cache").inc(batch.reused)
        self._batch_tokens.labels(model).observe(batch.computed)
        self._batch_sequences.labels(model).observe(batch.sequences)
        self._forward.labels(model).observe(batch.seconds)

    def count_cached(self, model: str, tokens: int) -> None:
        self._tokens.labels(model, "score_cache").inc(tokens)

    def watch_queue(self, model: str, batcher: Batcher) -> None:
        self._queue_tokens.labels(model).set_function(lambda: batcher.queued_tokens)
        self._queue_sequences.labels(model).set_function(lambda: batcher.queued_sequences)

    def watch_texts(self, texts: TextQueue) -> None:
        self._text_characters.set_function(lambda: texts.chars)

    def watch_calls(self, model: str, waiting: Callable[[], int]) -> None:
        self._queue_sequences.labels(model).set_function(waiting)

    def watch_padding(self, model: str, padding: Callable[[], int]) -> None:
        self._padding.set_function(model, padding)

    def watch_prefix_cache(self, model: str, cache: PrefixCacheStats) -> None:
        self._held.labels(model).set_function(lambda: cache.used_bytes + cache.joined_bytes)
        self._held_limit.labels(model).set(cache.max_bytes)
        self._evicted.set_function(model, lambda: cache.evicted_bytes)

    def watch_workers(self, model: str, workers: Workers) -> None:
        self._workers.labels(model, "running").set_function(lambda: workers.running)
        self._workers.labels(model, "down").set_function(lambda: workers.down)
        self._worker_restarts.set_function(model, lambda: workers.restarts)

    def set_queue_limit(self, tokens: int) -> None:
        self._queue_limit.set(tokens)
