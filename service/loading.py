"""From a checkpoint to a model in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from agentprm.errors import CheckpointError
from model_store.manifest import Manifest
from model_store.quantise import ScoreError
from model_store.render import Renderer, load_renderer
from model_store.store import Checkpoint, Store
from service.batcher import Engine
from service.engine import PaddedEngine, PrefixEngine
from service.engine_choice import load_engine
from service.prefix_cache import PrefixCache
from service.settings import Settings, usable_cores


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint in memory; ``device`` and ``dtype``, "bfloat16+int4" say, are those it really runs with."""

    manifest: Manifest
    renderer: Renderer
    engine: Engine
    prefix_cache: PrefixCache[Any] | None
    """What the engine keeps between requests; None if it keeps nothing."""
    row_tokens: int
    """New tokens of a forward that suit the device."""
    device: str
    dtype: str
    padding: Callable[[], int] = int
    """Tokens that the engine has computed only to fill rows; int() is 0."""
    load_seconds: float = 0.0
    weights: str = "auto"
    weights_error: ScoreError | None = None
    """What quantised weights cost in score."""


@dataclass(frozen=True, slots=True)
class LoadedJudge:
    """A judge, of which nothing is in memory: its model lives behind a server."""

    manifest: Manifest
    device: str = "remote"
    load_seconds: float = 0.0

    @property
    def dtype(self) -> str:
        return self.manifest.dtype


Loaded = LoadedModel | LoadedJudge


def load_models(settings: Settings) -> list[Loaded]:
    """Every model that the settings name, once each.

    Raises:
        CheckpointError: one that is missing, corrupt or cannot be loaded.
        AgentPRMError: the device is not there.
    """
    store = Store(settings.model_store)
    references = dict.fromkeys(map(store.reference, settings.models))
    return [load_checkpoint(store.resolve(reference), settings) for reference in references]


def load_checkpoint(checkpoint: Checkpoint, settings: Settings) -> Loaded:
    """One resolved checkpoint. Raises as ``load_models`` does."""
    if checkpoint.manifest.judge is not None:
        if not settings.judge_url:
            raise CheckpointError(f"{checkpoint.manifest.reference} is a judge, and AGENTPRM_JUDGE_URL names no server")
        return LoadedJudge(checkpoint.manifest)
    return load_model(checkpoint, settings)


def load_model(checkpoint: Checkpoint, settings: Settings) -> LoadedModel:
    """One that has weights. Raises as ``load_models`` does."""
    started = perf_counter()
    errors: list[ScoreError] = []
    engine = load_engine(
        checkpoint,
        settings.device,
        settings.dtype,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        cpu_threads=settings.cpu_threads or usable_cores(),
        weights=settings.weights,
        on_quantised=errors.append,
    )
    renderer = load_renderer(checkpoint)
    renderer.refuse_too_few_rows(engine.vocabulary)
    return LoadedModel(
        checkpoint.manifest,
        renderer,
        engine,
        engine.prefix_cache if isinstance(engine, PrefixEngine) else None,
        engine.row_tokens,
        device=str(engine.device),
        dtype=engine.dtype if settings.weights == "auto" else f"{engine.dtype}+{settings.weights}",
        padding=(lambda: engine.padding_tokens) if isinstance(engine, PaddedEngine) else int,
        load_seconds=perf_counter() - started,
        weights=settings.weights,
        weights_error=errors[0] if errors else None,
    )
