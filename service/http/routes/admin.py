"""The routes that change which models are served, for keys with the scope ``admin``."""

from typing import Final

from fastapi import APIRouter, Request, Response

from agentprm import wire
from agentprm.errors import Forbidden, InternalError, InvalidRequest, ModelNotFound, Unauthorized
from service.http.openapi import documented_errors
from service.http.routes.probes import models_reply
from service.http.state import RouteState, route_state

PREFIX: Final = "/admin"
ROUTES: Final = tuple(f"{PREFIX}/{act}" for act in ("load", "unload", "alias", "reload"))

router = APIRouter(
    prefix=PREFIX,
    tags=["admin"],
    responses=documented_errors(Unauthorized, Forbidden, InvalidRequest, ModelNotFound, InternalError),
)


@router.post("/load", response_model=wire.ModelsReply)
async def load(request: Request, body: wire.ModelReference) -> Response:
    """Serves one more model: an alias, a name (its newest version) or `name@version` of the store."""
    state = route_state(request)
    await state.registry.load(body.model)
    return _models(state)


@router.post("/unload", response_model=wire.ModelsReply)
async def unload(request: Request, body: wire.ModelReference) -> Response:
    """Stops serving a model, and unloads it once its running requests are answered. Refuses the default model."""
    state = route_state(request)
    await state.registry.unload(body.model)
    return _models(state)


@router.post("/alias", response_model=wire.ModelsReply)
async def alias(request: Request, body: wire.AliasTarget) -> Response:
    """Points an alias of the store to a checkpoint, once that is loaded, and serves it under the alias."""
    state = route_state(request)
    await state.registry.set_alias(body.alias, body.model)
    return _models(state)


@router.post("/reload", response_model=wire.ModelsReply)
async def reload(request: Request) -> Response:
    """Follows the store: aliases that point elsewhere and newer versions of bare names. SIGHUP does the same."""
    state = route_state(request)
    await state.registry.reload()
    return _models(state)


def _models(state: RouteState) -> Response:
    return Response(models_reply(state.models).model_dump_json(), media_type="application/json")
