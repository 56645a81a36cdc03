"""Turns a model in memory into one that answers requests."""

import logging
from concurrent.futures import ThreadPoolExecutor

from agentprm import wire
from model_store.errors import one_line
from model_store.format.manifest import Manifest
from service.generation.judge import RemoteJudge
from service.generation.server import GenerationClient, read_key
from service.metrics import Metrics
from service.models.load import Loaded, LoadedJudge, LoadedModel
from service.models.served import ServedModel
from service.queue.batcher import Batcher
from service.queue.texts import TextQueue, characters_allowed
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import KeyScope
from service.scoring.chat_sequences import make_sequencer
from service.scoring.judge_source import JudgeSource
from service.scoring.observer import ModelObserver
from service.scoring.scorer import Scorer
from service.scoring.token_source import TokenSource
from service.settings import Settings

logger = logging.getLogger(__name__)


class ModelBuilder:
    """Builds served models around one engine thread, one tokenizer thread with its queue, and one score cache.

    Raises KeyUnreadable if the settings name a judge's key that cannot be read.
    """

    def __init__(self, settings: Settings, cache: ScoreCache, metrics: Metrics) -> None:
        self._settings = settings
        self._cache = cache
        self._metrics = metrics
        self._judge_key = read_key(settings.judge_api_key_file)
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._tokenizer_thread = ThreadPoolExecutor(1, "tokenizer")
        self._texts = TextQueue(self._tokenizer_thread)
        metrics.engine.watch_texts(self._texts)

    def build(self, model: Loaded) -> ServedModel:
        """Builds all that scores with a model. It is not started yet."""
        self._register_metrics(model)
        _log_training(model.manifest)
        observer = self._metrics.observer(model.manifest.reference)
        source = self._source(model, observer)
        promise = model.manifest.score.promise
        scorer = Scorer(source, self._cache, self._texts, promise=promise, observer=observer)
        return ServedModel(
            _info(model, self._settings),
            scorer,
            observer,
            load_seconds=model.load_seconds,
            workers=model.workers if isinstance(model, LoadedModel) else None,
        )

    def close(self) -> None:
        for thread in (self._engine_thread, self._tokenizer_thread):
            thread.shutdown()

    def _register_metrics(self, model: Loaded) -> None:
        """Creates the model's metrics, and connects those that are read at a scrape."""
        metrics, reference = self._metrics, model.manifest.reference
        metrics.add_model(reference)
        metrics.process.set_model_info(reference, digest=model.manifest.digest, device=model.device, dtype=model.dtype)
        if isinstance(model, LoadedJudge):
            return
        metrics.engine.watch_padding(reference, model.padding)
        metrics.process.watch_gpu_memory(model.gpu_memory, reference)
        if model.workers is not None:
            metrics.engine.watch_workers(reference, model.workers)
        if model.prefix_cache is not None:
            metrics.engine.watch_prefix_cache(reference, model.prefix_cache)

    def _source(self, model: Loaded, observer: ModelObserver) -> JudgeSource | TokenSource:
        if isinstance(model, LoadedJudge):
            return self._judge_source(model, observer)
        return self._token_source(model, observer)

    def _token_source(self, model: LoadedModel, observer: ModelObserver) -> TokenSource:
        manifest = model.manifest
        sequencer = make_sequencer(model.renderer, self._scope(model), context_length=manifest.context_length)
        batcher = self._batcher(model, observer)
        self._metrics.engine.watch_queue(manifest.reference, batcher)
        return TokenSource(sequencer, batcher, self._texts)

    def _batcher(self, model: LoadedModel, observer: ModelObserver) -> Batcher:
        settings, cache = self._settings, model.prefix_cache
        return Batcher(
            model.engine,
            self._engine_thread,
            max_batch_tokens=settings.max_batch_tokens or model.row_tokens,
            max_queue_tokens=settings.max_queue_tokens,
            max_wait=settings.max_wait_ms / 1000,
            in_pieces=cache is not None and cache.max_bytes > 0,
            observer=observer,
        )

    def _judge_source(self, model: LoadedJudge, observer: ModelObserver) -> JudgeSource:
        manifest, settings = model.manifest, self._settings
        assert manifest.judge is not None
        timeout = settings.remote_timeout_ms / 1000
        client = GenerationClient("the judge's server", settings.judge_url, self._judge_key, timeout=timeout)
        source = JudgeSource(
            RemoteJudge(manifest.judge, manifest.texts, client),
            self._scope(model),
            max_concurrent=settings.remote_calls,
            max_waiting=settings.max_remote_queue,
            observer=observer,
        )
        self._metrics.engine.watch_calls(manifest.reference, lambda: source.waiting_calls)
        return source

    def _scope(self, model: Loaded) -> KeyScope:
        manifest = model.manifest
        return KeyScope(self._settings.score_cache_namespace, manifest.digest, manifest.render_version, model.dtype)


def _log_training(manifest: Manifest) -> None:
    if manifest.trained_on is not None:
        logger.info(
            "%s was trained on %s; scores of other text mean little, and an item has at most %d tokens",
            manifest.reference,
            one_line(manifest.trained_on, 300),
            manifest.context_length,
        )


def _weights(model: Loaded) -> wire.Weights | None:
    if not isinstance(model, LoadedModel) or model.weights_error is None:
        return None
    error = model.weights_error._asdict()
    return wire.Weights(quantised=model.weights, measured_on=error.pop("measured_on"), error=error)


def _info(model: Loaded, settings: Settings) -> wire.ModelInfo:
    manifest = model.manifest
    return wire.ModelInfo(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        aliases=[],
        default=False,
        base_model=manifest.base_model,
        dtype=model.dtype,
        weights=_weights(model),
        device=model.device,
        limits=wire.Limits(
            items=settings.max_items,
            candidates=settings.max_candidates,
            tokens=manifest.context_length,
            characters=characters_allowed(manifest.context_length),
            body_bytes=settings.max_body_bytes,
            queue_tokens=settings.max_queue_tokens,
            requests=settings.max_requests,
        ),
        trained_on=manifest.trained_on,
        training=manifest.training,
        evaluation=manifest.evaluation,
    )
