"""/models, /health, /ready, /metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Response

from agentprm import wire
from agentprm.errors import (
    NotReady,
)
from service.http.openapi import documented_errors
from service.models.catalog import Models

PROBE_ROUTES: Final = ("/health", "/ready", "/metrics")


@dataclass(frozen=True, slots=True)
class Probes:
    """What operators ask: why it is broken or not ready, None while it is not; and the text of ``/metrics``."""

    why_broken: Callable[[], str | None]
    why_not_ready: Callable[[], str | None]
    exposition: Callable[[], bytes]


def add_probe_routes(router: APIRouter, models: Models, probes: Probes) -> None:
    @router.get("/models", tags=["service"])
    async def list_models() -> wire.ModelsReply:
        """The loaded models, the default first, with their limits and how they were trained and evaluated."""
        return tell_models(models)

    @router.get("/health", tags=["service"], responses=documented_errors(NotReady))
    async def health() -> dict[str, str]:
        """The process lives. 503 only where nothing but a new process helps: its device is lost."""
        if (reason := probes.why_broken()) is not None:
            raise NotReady(reason)
        return {"status": "ok"}

    @router.get("/ready", tags=["service"], responses=documented_errors(NotReady))
    async def ready() -> dict[str, str]:
        """A request sent now would be scored: warmed up, every batcher alive, not draining."""
        if (reason := probes.why_not_ready()) is not None:
            raise NotReady(reason, retry_after=1)
        return {"status": "ready"}

    @router.get("/metrics", tags=["service"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(probes.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def tell_models(models: Models) -> wire.ModelsReply:
    return wire.ModelsReply(models=[model.info for model in models.all])
