"""Builds the application from the settings: its parts, routes, middleware and lifespan."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from agentprm.errors import RequestError
from model_store.format.store import Checkpoint, Store
from service.access.api_keys import ApiKeys
from service.access.rate_limits import LocalRateLimiter, RateLimiter, RedisRateLimiter
from service.engine.device_memory import gpu_memory, release_memory
from service.generation.policy import Policy
from service.generation.server import GenerationClient, read_key, set_up_http_clients
from service.http.body_route import BodyRoutes, body_routes
from service.http.exposition import SharedExposition
from service.http.framework_errors import add_exception_handlers
from service.http.limits import LARGE_BODIES_PAUSE
from service.http.loop_turns import LoopTurns
from service.http.middleware.asgi import App
from service.http.middleware.authentication import Authentication
from service.http.middleware.body import BufferedBody
from service.http.middleware.concurrency import ConcurrencyLimit, InFlightRequests
from service.http.middleware.errors import ErrorReplies
from service.http.middleware.request_log import RequestLog
from service.http.routes import admin, outcomes, probes, scores
from service.http.routes.admin import PREFIX as ADMIN_PREFIX
from service.http.routes.admin import ROUTES as ADMIN_ROUTES
from service.http.routes.outcomes import OUTCOMES
from service.http.routes.probes import PROBE_ROUTES
from service.http.routes.scores import ROUTES, SCORE_ROUTES
from service.http.state import RouteState, store_state
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.models.assemble import ModelBuilder
from service.models.catalog import Models
from service.models.load import Loaded, load_checkpoint
from service.models.registry import Registry, reload_and_log
from service.queue.fair_queue import Priority
from service.recording.recorder import open_recorder
from service.redis_client.connections import connect
from service.score_cache.contract import ScoreCache
from service.score_cache.memory_tier import MemoryTier
from service.score_cache.redis_tier import GRACE_SECONDS, RedisTier
from service.score_cache.tiers import TieredCache
from service.settings import Settings
from service.tracing import Tracing

logger = logging.getLogger(__name__)

DOCS_ASSETS: Final = "/docs/assets"
ALL_ROUTES: Final = (*ROUTES, *ADMIN_ROUTES)
PRIORITIES: Final = {
    "/score_step": Priority.INTERACTIVE,
    "/score_trajectory": Priority.BULK,
    "/rank_actions": Priority.INTERACTIVE,
}
"""The routes that score, with the priority of a request that names none."""
Load = Callable[[Checkpoint, Settings], Loaded]
Limit = Callable[[App], ConcurrencyLimit]
NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False}
"""Switches off FastAPI's own telemetry: it would send exception messages and paths, which may hold an agent's text."""


def create_app(
    loaded: Sequence[Loaded],
    settings: Settings,
    *,
    failed: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
    load: Load = load_checkpoint,
    tracing: Tracing | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Builds the application over models in memory. It scores from the start to the end of its lifespan.

    Args:
        loaded: the first models, the default one first.
        settings: everything else.
        failed: reference of each model that could not be loaded -> why.
        aliases: alias -> ``name@version``; None: those of the store.
        load: loads a checkpoint while the application runs.
        tracing: sends traces; None: no traces are sent.
        metrics: made by ``new_metrics``, for a caller who counts too; None: they are the application's own.
    """
    store = Store(settings.model_store)
    metrics = metrics or new_metrics()
    cache, rate_limiter = _caches(settings, metrics)
    builder = ModelBuilder(settings, cache, metrics)
    models = Models()
    models.swap(list(map(builder.build, loaded)), store.aliases() if aliases is None else aliases, failed)
    registry = _registry(store, models, settings, load=load, builder=builder, metrics=metrics)
    policy = _policy(settings)
    recorder = open_recorder(settings.record, settings.record_max_bytes, metrics.recording)
    lifecycle = Lifecycle(models, registry, cache, rate_limiter, policy, recorder=recorder)
    in_flight = InFlightRequests(settings.max_requests)
    _watch(metrics, settings, lifecycle, in_flight)
    app = _new_application(_lifespan(lifecycle, builder, registry, tracing))
    turns = LoopTurns(LARGE_BODIES_PAUSE)
    _add_routes(app, settings, lifecycle, models=models, registry=registry, policy=policy, metrics=metrics, turns=turns)
    _add_middleware(app, settings, metrics, _limit(models, in_flight, rate_limiter), tracing=tracing, turns=turns)
    return app


def new_metrics() -> Metrics:
    """Returns the metrics of one application, which its server counts in too."""
    return Metrics(ALL_ROUTES, SCORE_ROUTES)


def _registry(
    store: Store, models: Models, settings: Settings, *, load: Load, builder: ModelBuilder, metrics: Metrics
) -> Registry:
    return Registry(
        store,
        settings.models,
        models,
        load=lambda checkpoint: load(checkpoint, settings),
        assemble=builder.build,
        on_unloaded=metrics.remove_model,
        release=release_memory,
    )


def _new_application(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    return FastAPIOffline(  # its /docs page needs no other host
        title="AgentPRM",
        summary="Scores the steps of LLM agents: promise = Q(s, a), progress = what the step changed.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        static_url=DOCS_ASSETS,
        telemetry=NO_TELEMETRY,
    )


def _add_routes(
    app: FastAPI,
    settings: Settings,
    lifecycle: Lifecycle,
    *,
    models: Models,
    registry: Registry,
    policy: Policy | None,
    metrics: Metrics,
    turns: LoopTurns,
) -> None:
    """Adds the routes, and stores what they read from the application's state."""
    for router in _routers(settings):
        app.include_router(router)
    add_exception_handlers(app)
    state = RouteState(
        models=models,
        registry=registry,
        policy=policy,
        recorder=lifecycle.recorder,
        max_items=settings.max_items,
        max_candidates=settings.max_candidates,
        large_bodies=turns,
        why_broken=lifecycle.why_broken,
        why_not_ready=lifecycle.why_not_ready,
        exposition=SharedExposition(metrics.exposition),
    )
    store_state(app, state)


def _routers(settings: Settings) -> list[APIRouter]:
    """Returns the routers that are served: those of ``/admin`` only where there are API keys."""
    return [scores.router, outcomes.router, probes.router, *([] if settings.api_keys_file is None else [admin.router])]


def _limit(models: Models, in_flight: InFlightRequests, rate_limiter: RateLimiter) -> Limit:
    return partial(
        ConcurrencyLimit,
        priorities={**PRIORITIES, OUTCOMES: None},
        in_flight=in_flight,
        refuse_if_full=models.refuse_if_full,
        rate_limiter=rate_limiter,
    )


def _watch(metrics: Metrics, settings: Settings, lifecycle: Lifecycle, in_flight: InFlightRequests) -> None:
    metrics.process.watch_ready(lambda: lifecycle.why_not_ready() is None)
    metrics.process.watch_failed_models(lambda: lifecycle.failed_models)
    metrics.process.watch_gpu_memory(gpu_memory)
    metrics.engine.set_queue_limit(settings.max_queue_tokens)
    metrics.requests.watch_running(lambda: in_flight.running)
    metrics.requests.set_limit(in_flight.limit)


def _lifespan(
    lifecycle: Lifecycle, builder: ModelBuilder, registry: Registry, tracing: Tracing | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with closing(builder):
            try:
                await _start(lifecycle)
                with _reload_on_sighup(registry):
                    yield
            finally:
                await lifecycle.drain()
                if tracing is not None:
                    await tracing.close()

    return lifespan


async def _start(lifecycle: Lifecycle) -> None:
    set_up_http_clients()
    try:
        await lifecycle.start()
    except RequestError as error:
        logger.critical("the service cannot start: %s", error)
        raise


def _add_middleware(
    app: FastAPI,
    settings: Settings,
    metrics: Metrics,
    limit: Limit,
    *,
    tracing: Tracing | None,
    turns: LoopTurns,
) -> None:
    """Wraps the application. The last one added is the outermost."""
    routes = body_routes(*_routers(settings))
    # Around FastAPI's search for a route, within every other layer.
    app.router.middleware_stack = BodyRoutes(app.router.middleware_stack, routes=routes)
    app.add_middleware(BufferedBody, paths=routes, max_bytes=settings.max_body_bytes, turns=turns)
    app.add_middleware(limit)
    if settings.api_keys_file is not None:
        open_paths = set(PROBE_ROUTES) - ({"/metrics"} if settings.guard_metrics else set())
        keys = ApiKeys(settings.api_keys_file)
        app.add_middleware(Authentication, keys=keys, open_paths=open_paths, admin=ADMIN_PREFIX, record=OUTCOMES)
    app.add_middleware(ErrorReplies, on_error=metrics.requests.on_error)
    known = {"routes": ALL_ROUTES, "quiet": PROBE_ROUTES}
    app.add_middleware(RequestLog, on_request=metrics.requests.on_request, **known)
    if tracing is not None:
        app.add_middleware(tracing.middleware, **known)


@contextmanager
def _reload_on_sighup(registry: Registry) -> Iterator[None]:
    """Reloads models at SIGHUP until the block ends. Only a process's main thread can receive signals."""
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
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # its default would end the process


def _policy(settings: Settings) -> Policy | None:
    if not settings.policy_url:
        return None
    timeout, key = settings.remote_timeout_ms / 1000, read_key(settings.policy_api_key_file)
    client = GenerationClient("the policy's server", settings.policy_url, key, timeout=timeout)
    return Policy(
        client, settings.policy_model, max_concurrent=settings.remote_calls, max_waiting=settings.max_remote_queue
    )


def _caches(settings: Settings, metrics: Metrics) -> tuple[ScoreCache, RateLimiter]:
    """Returns the score cache and the rate limiter: in memory, and in Redis too if the settings name one.

    Raises:
        RedisURLError: its URL cannot be used.
    """
    memory = MemoryTier(settings.score_cache_items, metrics.score_cache)
    metrics.score_cache.watch_memory_tier(lambda: len(memory))
    if not settings.redis_url:
        return memory, LocalRateLimiter()
    open_server = partial(connect, settings.redis_url, timeout=GRACE_SECONDS)
    namespace, budget = settings.score_cache_namespace, settings.redis_timeout_ms / 1000
    redis = RedisTier(
        open_server(), namespace, budget=budget, ttl=settings.score_cache_ttl_seconds, observer=metrics.score_cache
    )
    metrics.score_cache.watch_redis_tier(lambda: redis.unwritten, lambda: redis.states)
    if settings.api_keys_file is None:  # only keys have rates
        return TieredCache(memory, redis), LocalRateLimiter()
    return TieredCache(memory, redis), RedisRateLimiter(open_server(), namespace, budget=budget)
