"""From a checkpoint to a model in memory."""

from dataclasses import dataclass
from typing import Any

from model_store.manifest import Manifest
from model_store.render import Renderer, load_renderer
from model_store.store import Checkpoint, Store
from service.batcher import Engine
from service.engine import PrefixEngine, load_engine
from service.prefix_cache import PrefixCache
from service.settings import Settings, usable_cores


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint in memory; ``device`` and ``dtype`` are those it really runs with."""

    manifest: Manifest
    renderer: Renderer
    engine: Engine
    prefix_cache: PrefixCache[Any] | None
    """What the engine keeps between requests; None if it keeps nothing."""
    row_tokens: int
    """New tokens of a forward that suit the device."""
    device: str
    dtype: str


def load_models(settings: Settings) -> list[LoadedModel]:
    """Every model that the settings name, once each.

    Raises:
        CheckpointError: one that is missing, corrupt or cannot be loaded.
        AgentPRMError: the device is not there.
    """
    store = Store(settings.model_store)
    references = dict.fromkeys(map(store.reference, settings.models))
    return [load_checkpoint(store.resolve(reference), settings) for reference in references]


def load_checkpoint(checkpoint: Checkpoint, settings: Settings) -> LoadedModel:
    """One resolved checkpoint. Raises as ``load_models`` does."""
    engine = load_engine(
        checkpoint,
        settings.device,
        settings.dtype,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        cpu_threads=settings.cpu_threads or usable_cores(),
    )
    return LoadedModel(
        checkpoint.manifest,
        load_renderer(checkpoint),
        engine,
        engine.prefix_cache if isinstance(engine, PrefixEngine) else None,
        engine.row_tokens,
        device=str(engine.device),
        dtype=engine.dtype,
    )
