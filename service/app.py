"""Builds the service from its settings: loads, wires, warms up, drains."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agentprm import wire
from agentprm.errors import InvalidRequest, MethodNotAllowed, NotFound
from model_store.store import Checkpoint, Store
from service.admin import PREFIX as ADMIN_PREFIX
from service.admin import ROUTES as ADMIN_ROUTES
from service.admin import build_admin_router
from service.api import PROBE_ROUTES, ROUTES, SCORE_ROUTES, Probes, build_router
from service.api_keys import ApiKeys
from service.batcher import Batcher
from service.guard import Guard
from service.loading import LoadedModel, load_checkpoint
from service.memory import gpu_memory, release_memory
from service.metrics import Metrics
from service.middleware import ErrorReplies, RequestRecord, WholeBody
from service.models import Models, ServedModel
from service.registry import Registry, reload_and_log
from service.score_cache.connections import connect
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import KeyScope
from service.score_cache.memory import MemoryTier
from service.score_cache.redis_tier import GRACE_SECONDS, RedisTier
from service.score_cache.tiers import Tiers
from service.scorer import Scorer
from service.sequences import Sequencer
from service.settings import Settings

MAX_REPORTED_ERRORS: Final = 20
MAX_REPORTED_NAME: Final = 64


def create_app(
    loaded: Sequence[LoadedModel],
    settings: Settings,
    *,
    aliases: Mapping[str, str] | None = None,
    load: Callable[[Checkpoint, Settings], LoadedModel] = load_checkpoint,
) -> FastAPI:
    """The application over models in memory; it scores between the start and the end of its lifespan.

    Args:
        loaded: the models to begin with, the default first.
        settings: all else.
        aliases: alias -> ``name@version``; None: those of the store.
        load: how a model is loaded later on.
    """
    store = Store(settings.model_store)
    metrics = Metrics((*ROUTES, *ADMIN_ROUTES), SCORE_ROUTES)
    engine_thread = ThreadPoolExecutor(1, "engine")
    tokenizer_thread = ThreadPoolExecutor(1, "tokenizer")
    cache = _score_cache(settings, metrics)

    def assemble(model: LoadedModel) -> ServedModel:
        _show(model, metrics)
        batcher = _batcher(model, engine_thread, settings, metrics)
        scorer = _scorer(model, batcher, cache, tokenizer_thread, settings=settings, metrics=metrics)
        on_warm = partial(metrics.process.on_warm, model.manifest.reference, model.load_seconds)
        return ServedModel(_info(model, settings), scorer, batcher, on_warm)

    models = Models()
    models.swap(list(map(assemble, loaded)), store.aliases() if aliases is None else aliases)
    registry = Registry(
        store,
        settings.models,
        models,
        load=lambda checkpoint: load(checkpoint, settings),
        assemble=assemble,
        on_gone=metrics.remove_model,
        release=release_memory,
    )
    life = Life(models, registry, cache)
    metrics.process.watch_ready(lambda: life.why_not_ready() is None)
    metrics.process.watch_gpu_memory(gpu_memory)
    metrics.engine.show_queue_limit(settings.max_queue_tokens)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with engine_thread, tokenizer_thread:
            try:
                await life.start()
                with _reloaded_by_hangup(registry):
                    yield
            finally:
                await life.drain()

    app = FastAPI(
        title="AgentPRM",
        summary="Scores the steps of LLM agents: promise = Q(s, a), progress = what the step changed.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    probes = Probes(life.why_not_ready, metrics.exposition)
    app.include_router(
        build_router(models, probes, max_items=settings.max_items, max_candidates=settings.max_candidates)
    )
    if settings.api_keys_file is not None:
        app.include_router(build_admin_router(registry, models))
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_http)
    _add_middleware(app, settings, metrics)
    return app


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The last one added is the outermost."""
    app.add_middleware(WholeBody, max_bytes=settings.max_body_bytes)
    if settings.api_keys_file is not None:
        open_paths = set(PROBE_ROUTES) - ({"/metrics"} if settings.guard_metrics else set())
        app.add_middleware(Guard, keys=ApiKeys(settings.api_keys_file), open_paths=open_paths, admin=ADMIN_PREFIX)
    app.add_middleware(ErrorReplies, on_error=metrics.requests.on_error)
    app.add_middleware(
        RequestRecord, on_request=metrics.requests.on_request, routes=(*ROUTES, *ADMIN_ROUTES), quiet=PROBE_ROUTES
    )


@contextmanager
def _reloaded_by_hangup(registry: Registry) -> Iterator[None]:
    """SIGHUP reloads while the block runs; only a process's main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(reload_and_log(registry), name="reload")
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


class Life:
    """From warm-up to drained: the answer to ``/ready``."""

    def __init__(self, models: Models, registry: Registry, cache: ScoreCache) -> None:
        self._models = models
        self._registry = registry
        self._cache = cache
        self._phase = "the service is warming up"

    def why_not_ready(self) -> str | None:
        """None while a request sent now would be scored."""
        if self._phase:
            return self._phase
        return None if all(model.alive for model in self._models.all) else "a batcher is dead. This is a bug"

    async def start(self) -> None:
        await self._cache.start()
        for model in self._models.all:
            await model.start()
        self._phase = ""

    async def drain(self) -> None:
        """Turns ``/ready`` red, answers what was admitted, then stores the last scores."""
        self._phase = "the service is shutting down"
        await self._registry.close()
        await self._cache.close()


def _show(model: LoadedModel, metrics: Metrics) -> None:
    reference, cache = model.manifest.reference, model.prefix_cache
    metrics.add_model(reference)
    metrics.process.show_model(reference, digest=model.manifest.digest, device=model.device, dtype=model.dtype)
    metrics.engine.watch_padding(reference, model.padding)
    if cache is not None:
        metrics.engine.watch_prefix_cache(reference, cache)


def _batcher(model: LoadedModel, thread: Executor, settings: Settings, metrics: Metrics) -> Batcher:
    reference, cache = model.manifest.reference, model.prefix_cache
    batcher = Batcher(
        model.engine,
        thread,
        max_batch_tokens=settings.max_batch_tokens or model.row_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        max_wait=settings.max_wait_ms / 1000,
        in_pieces=cache is not None and cache.max_bytes > 0,
        on_batch=partial(metrics.engine.on_batch, reference),
        on_invalid=partial(metrics.scores.on_invalid, reference),
    )
    metrics.engine.watch_queue(reference, batcher)
    return batcher


def _score_cache(settings: Settings, metrics: Metrics) -> ScoreCache:
    """Memory, and Redis behind it where the settings name one.

    Raises:
        RedisURLError: its URL cannot be used.
    """
    memory = MemoryTier(settings.score_cache_items, metrics.score_cache)
    metrics.score_cache.watch_memory_tier(lambda: len(memory))
    if not settings.redis_url:
        return memory
    redis = RedisTier(
        connect(settings.redis_url, timeout=GRACE_SECONDS),
        settings.score_cache_namespace,
        budget=settings.redis_timeout_ms / 1000,
        ttl=settings.score_cache_ttl_seconds,
        watcher=metrics.score_cache,
    )
    metrics.score_cache.watch_redis_tier(lambda: redis.unwritten, lambda: redis.states)
    return Tiers(memory, redis)


def _scorer(
    model: LoadedModel,
    batcher: Batcher,
    cache: ScoreCache,
    tokenizer_thread: Executor,
    *,
    settings: Settings,
    metrics: Metrics,
) -> Scorer:
    manifest = model.manifest
    scope = KeyScope(settings.score_cache_namespace, manifest.digest, manifest.render_version, model.dtype)
    return Scorer(
        Sequencer(model.renderer, scope, context_length=manifest.context_length),
        cache,
        batcher,
        tokenizer_thread,
        promise=manifest.score.promise,
        on_cached=partial(metrics.engine.on_cached, manifest.reference),
        on_answer=metrics.scores.answers_of(manifest.reference),
    )


def _info(model: LoadedModel, settings: Settings) -> wire.ModelInfo:
    manifest = model.manifest
    return wire.ModelInfo(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        aliases=[],
        default=False,
        base_model=manifest.base_model,
        dtype=model.dtype,
        device=model.device,
        limits=wire.Limits(
            items=settings.max_items,
            candidates=settings.max_candidates,
            tokens=manifest.context_length,
            body_bytes=settings.max_body_bytes,
        ),
        training=manifest.training,
        evaluation=manifest.evaluation,
    )


async def _refuse_invalid(_: Request, error: Exception) -> NoReturn:
    """FastAPI's complaints without the input they quote: no agent's text may leave in an error."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"loc": [_place(part) for part in wrong["loc"]], "msg": wrong["msg"], "type": wrong["type"]}
        for wrong in error.errors()[:MAX_REPORTED_ERRORS]
    ]
    raise InvalidRequest(_sentence(errors[0]["loc"], errors[0]["msg"]), details={"errors": errors}) from None


def _place(part: int | str) -> int | str:
    """A part of a location; the name of an unknown field is the caller's, so it may be long or no text at all."""
    return part if isinstance(part, int) else part[:MAX_REPORTED_NAME].encode(errors="replace").decode()


def _sentence(loc: Sequence[int | str], message: str) -> str:
    return f"{'.'.join(map(str, loc))}: {message}"


async def _refuse_http(request: Request, error: Exception) -> NoReturn:
    """Starlette's and FastAPI's own refusals as ours."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise NotFound("no such route; /docs lists them")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"{request.method} is not allowed here, but {allow}", details={"allow": allow})
    raise InvalidRequest("the body is not JSON in UTF-8, or nests too deeply") from None
