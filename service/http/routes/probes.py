"""The routes that report on the service: /models, /health, /ready, /metrics."""

from typing import Final

from fastapi import APIRouter, Request, Response

from agentprm import wire
from agentprm.errors import NotReady
from service.http.openapi import documented_errors
from service.http.state import route_state
from service.models.catalog import Models

PROBE_ROUTES: Final = ("/health", "/ready", "/metrics")

router = APIRouter(tags=["service"])


@router.head("/models", include_in_schema=False)
@router.get("/models")
async def list_models(request: Request) -> wire.ModelsReply:
    """The loaded models, the default first, with their limits and how they were trained and evaluated."""
    return models_reply(route_state(request).models)


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=documented_errors(NotReady))
async def health(request: Request) -> dict[str, str]:
    """200 while the process lives; 503 if only a new process can help, because a device or every worker is lost."""
    if (reason := route_state(request).why_broken()) is not None:
        raise NotReady(reason)
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=documented_errors(NotReady))
async def ready(request: Request) -> dict[str, str]:
    """200 if a request sent now would be scored: models warmed up, batchers and workers alive, not draining.

    Models that failed to start are named in `failed`; the others answer.
    """
    state = route_state(request)
    if (reason := state.why_not_ready()) is not None:
        raise NotReady(reason, retry_after=1)
    failed = ", ".join(state.models.failed)
    return {"status": "ready"} | ({"failed": failed} if failed else {})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    text = await route_state(request).exposition()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def models_reply(models: Models) -> wire.ModelsReply:
    return wire.ModelsReply(models=[model.info for model in models.all])
