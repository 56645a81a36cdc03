"""From a model in memory to one that answers; what all models of a process share is here."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from agentprm import wire
from service.generation.judge import Judgement, Prefix, RemoteJudge
from service.generation.server import GenerationClient, read_key
from service.metrics import Metrics
from service.models.load import Loaded, LoadedJudge, LoadedModel
from service.models.served import ServedModel
from service.queue.batcher import Batcher
from service.queue.calls import Calls
from service.queue.work import Batch
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import Key, KeyScope
from service.scoring.judge_scorer import JudgeScorer
from service.scoring.scorer import Scorer
from service.scoring.sequences import Sequencer
from service.settings import Settings


class Assembly:
    """One engine thread, one tokenizer thread and one score cache, whatever the models.

    Raises KeyUnreadable where the settings name a judge's key that cannot be read.
    """

    def __init__(self, settings: Settings, cache: ScoreCache, metrics: Metrics) -> None:
        self._settings = settings
        self._cache = cache
        self._metrics = metrics
        self._judge_key = read_key(settings.judge_api_key_file)
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._tokenizer_thread = ThreadPoolExecutor(1, "tokenizer")

    def serve(self, model: Loaded) -> ServedModel:
        """All that scores with a model, not started yet."""
        self._show(model)
        on_warm = partial(self._metrics.process.on_warm, model.manifest.reference, model.load_seconds)
        scorer = self._judge_scorer(model) if isinstance(model, LoadedJudge) else self._scorer(model)
        return ServedModel(_info(model, self._settings), scorer, on_warm)

    def close(self) -> None:
        for thread in (self._engine_thread, self._tokenizer_thread):
            thread.shutdown()

    def _show(self, model: Loaded) -> None:
        metrics, reference = self._metrics, model.manifest.reference
        metrics.add_model(reference)
        metrics.process.show_model(reference, digest=model.manifest.digest, device=model.device, dtype=model.dtype)
        if isinstance(model, LoadedJudge):
            return
        metrics.engine.watch_padding(reference, model.padding)
        metrics.process.watch_gpu_memory(model.gpu_memory, reference)
        if model.prefix_cache is not None:
            metrics.engine.watch_prefix_cache(reference, model.prefix_cache)

    def _batcher(self, model: LoadedModel) -> Batcher:
        settings, metrics = self._settings, self._metrics
        reference, cache = model.manifest.reference, model.prefix_cache
        batcher = Batcher(
            model.engine,
            self._engine_thread,
            max_batch_tokens=settings.max_batch_tokens or model.row_tokens,
            max_queue_tokens=settings.max_queue_tokens,
            max_wait=settings.max_wait_ms / 1000,
            in_pieces=cache is not None and cache.max_bytes > 0,
            on_batch=partial(metrics.engine.on_batch, reference),
            on_invalid=partial(metrics.scores.on_invalid, reference),
        )
        metrics.engine.watch_queue(reference, batcher)
        return batcher

    def _scorer(self, model: LoadedModel) -> Scorer:
        manifest = model.manifest
        return Scorer(
            Sequencer(model.renderer, self._scope(model), context_length=manifest.context_length),
            self._cache,
            self._batcher(model),
            self._tokenizer_thread,
            promise=manifest.score.promise,
            on_cached=partial(self._metrics.engine.on_cached, manifest.reference),
            on_answer=self._metrics.scores.answers_of(manifest.reference),
        )

    def _judge_scorer(self, model: LoadedJudge) -> JudgeScorer:
        manifest, settings, metrics = model.manifest, self._settings, self._metrics
        assert manifest.judge is not None
        client = GenerationClient(
            "the judge's server",
            settings.judge_url,
            self._judge_key,
            timeout=settings.remote_timeout_ms / 1000,
        )
        judge = RemoteJudge(manifest.judge, manifest.template, client)
        calls = Calls[Key, Prefix, Judgement](
            judge.judge,
            at_once=settings.remote_calls,
            max_waiting=settings.max_remote_queue,
            on_call=lambda judgement, seconds: metrics.engine.on_batch(
                manifest.reference, Batch(1, judgement.tokens, 0, seconds)
            ),
        )
        metrics.engine.watch_calls(manifest.reference, lambda: calls.waiting)
        return JudgeScorer(
            judge,
            self._scope(model),
            self._cache,
            calls,
            self._tokenizer_thread,
            promise=manifest.score.promise,
            on_cached=partial(metrics.engine.on_cached, manifest.reference),
            on_answer=metrics.scores.answers_of(manifest.reference),
        )

    def _scope(self, model: Loaded) -> KeyScope:
        manifest = model.manifest
        return KeyScope(self._settings.score_cache_namespace, manifest.digest, manifest.render_version, model.dtype)


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
            body_bytes=settings.max_body_bytes,
            queue_tokens=settings.max_queue_tokens,
            requests=settings.max_requests,
        ),
        training=manifest.training,
        evaluation=manifest.evaluation,
    )
