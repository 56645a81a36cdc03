"""Loads checkpoints: from a directory to a model in memory."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError
from model_store.format.manifest import Manifest
from model_store.format.store import Checkpoint, Store
from model_store.network.quantise import ScoreError
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.loading import renderer_of
from model_store.text.renderer import Renderer
from service.engine.contract import Engine, Workers
from service.engine.device_memory import Memory, release_memory
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_cache import PrefixCacheStats
from service.engine.prefix_engine import PrefixEngine
from service.engine.workers.group import WorkerGroup
from service.engine.workers.placement import cpu_processes, in_this_process, parse_placement
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import WorkerConfig
from service.settings import Settings, usable_cores

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint in memory. ``device`` and ``dtype``, for example "bfloat16+int4", are those that it runs with."""

    manifest: Manifest
    renderer: Renderer | ChatRenderer
    engine: Engine
    prefix_cache: PrefixCacheStats | None
    """Statistics of what the engine keeps between requests; None if it keeps nothing."""
    row_tokens: int
    """Number of new tokens per forward that suits the device."""
    device: str
    dtype: str
    padding: Callable[[], int] = int
    """Reads how many tokens the engine has computed only to fill rows; int() is 0."""
    gpu_memory: Callable[[], Memory] = dict
    """Reads the bytes, by device and kind, that worker processes use for the model."""
    load_seconds: float = 0.0
    workers: Workers | None = None
    """The processes that compute the model; None if it is this process."""
    weights: str = "auto"
    weights_error: ScoreError | None = None
    """Error of the scores with quantised weights; None with full ones."""


@dataclass(frozen=True, slots=True)
class LoadedJudge:
    """A judge, whose model runs on another server; only its manifest is in memory."""

    manifest: Manifest
    device: str = "remote"
    load_seconds: float = 0.0

    @property
    def dtype(self) -> str:
        return self.manifest.dtype


Loaded = LoadedModel | LoadedJudge


def load_models(settings: Settings) -> tuple[list[Loaded], dict[str, str]]:
    """Loads every model that the settings name, once each, the default first.

    Also returns why others could not be loaded, by reference: they keep none of the rest from being served.

    Raises:
        CheckpointError: the default model is missing, corrupt or cannot be loaded.
        AgentPRMError: its device does not exist.
        DeviceLost: a worker has ended while it loaded.
    """
    store = Store(settings.model_store)
    loaded: list[Loaded] = []
    failed: dict[str, str] = {}
    for reference in dict.fromkeys(map(store.reference, settings.models)):
        try:
            loaded.append(load_checkpoint(store.resolve(reference), settings))
        except AgentPRMError as error:
            if not loaded:
                raise
            logger.error("%s is not served: %s", reference, error)  # noqa: TRY400  (one sentence says it)
            failed[reference] = str(error)
        if reference in failed:
            release_memory()  # not above, where the error still holds what was loaded
    return loaded, failed


def load_checkpoint(checkpoint: Checkpoint, settings: Settings) -> Loaded:
    """Loads one resolved checkpoint.

    Raises:
        CheckpointError: it is corrupt, or its model cannot be loaded or computed.
        AgentPRMError: the device does not exist.
        DeviceLost: a worker has ended while it loaded.
    """
    if checkpoint.manifest.judge is not None:
        if not settings.judge_url:
            raise CheckpointError(f"{checkpoint.manifest.reference} is a judge, and AGENTPRM_JUDGE_URL names no server")
        return LoadedJudge(checkpoint.manifest)
    return load_model(checkpoint, settings)


def load_model(checkpoint: Checkpoint, settings: Settings) -> LoadedModel:
    """Loads a checkpoint that has weights. Raises as ``load_checkpoint`` does."""
    started = perf_counter()
    engine, weights_error = _engine(checkpoint, settings)
    renderer = renderer_of(checkpoint)
    renderer.refuse_too_few_rows(engine.vocabulary)
    return LoadedModel(
        checkpoint.manifest,
        renderer,
        engine,
        _prefix_cache(engine),
        engine.row_tokens,
        device=str(engine.device),
        dtype=engine.dtype if settings.weights == "auto" else f"{engine.dtype}+{settings.weights}",
        padding=int if isinstance(engine, PrefixEngine) else lambda: engine.padding_tokens,
        gpu_memory=engine.gpu_memory if isinstance(engine, SpreadEngine) else dict,
        load_seconds=perf_counter() - started,
        workers=engine if isinstance(engine, SpreadEngine) else None,
        weights=settings.weights,
        weights_error=weights_error,
    )


def _engine(
    checkpoint: Checkpoint, settings: Settings
) -> tuple[PrefixEngine | PaddedEngine | SpreadEngine, ScoreError | None]:
    """Builds the engine, in this process or over workers; also the error of quantised weights."""
    placement = parse_placement(settings.devices_of(*_names(checkpoint, settings)))
    config = WorkerConfig(
        checkpoint=checkpoint,
        devices=placement[0],
        dtype=settings.dtype,
        weights=settings.weights,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        cpu_threads=settings.cpu_threads or max(1, usable_cores() // cpu_processes(placement)),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
    if in_this_process(placement):
        return config.load()
    groups = [WorkerGroup(replace(config, devices=devices)) for devices in placement]  # they load concurrently
    engine = SpreadEngine(groups)
    return engine, engine.weights_error


def _names(checkpoint: Checkpoint, settings: Settings) -> list[str]:
    """Every name that a checkpoint answers to, the most precise first."""
    reference = checkpoint.manifest.reference
    aliases = Store(settings.model_store).aliases()
    return [reference, *(alias for alias, target in aliases.items() if target == reference), checkpoint.manifest.name]


def _prefix_cache(engine: PrefixEngine | PaddedEngine | SpreadEngine) -> PrefixCacheStats | None:
    if isinstance(engine, SpreadEngine):
        return engine if engine.shares_prefixes else None
    return engine.prefix_cache if isinstance(engine, PrefixEngine) else None
