"""The routes that change which models are served, for keys with the scope ``admin``."""

from typing import Final

from fastapi import APIRouter, Request

from agentprm import wire
from agentprm.errors import Forbidden, InternalError, InvalidRequest, ModelNotFound, Unauthorized
from service.http.openapi import documented_errors
from service.http.routes.probes import models_reply
from service.http.state import route_state

PREFIX: Final = "/admin"
ROUTES: Final = tuple(f"{PREFIX}/{act}" for act in ("load", "unload", "alias", "reload"))

router = APIRouter(
    prefix=PREFIX,
    tags=["admin"],
    responses=documented_errors(Unauthorized, Forbidden, InvalidRequest, ModelNotFound, InternalError),
)


@router.post("/load")
async def load(request: Request, body: wire.ModelReference) -> wire.ModelsReply:
    """Serves one more model: an alias, a name (its newest version) or `name@version` of the store."""
    state = route_state(request)
    await state.registry.load(body.model)
    return models_reply(state.models)


@router.post("/unload")
async def unload(request: Request, body: wire.ModelReference) -> wire.ModelsReply:
    """Stops serving a model, and unloads it once its running requests are answered. Refuses the default model."""
    state = route_state(request)
    await state.registry.unload(body.model)
    return models_reply(state.models)


@router.post("/alias")
async def alias(request: Request, body: wire.AliasTarget) -> wire.ModelsReply:
    """Points an alias of the store to a checkpoint, once that is loaded, and serves it under the alias."""
    state = route_state(request)
    await state.registry.set_alias(body.alias, body.model)
    return models_reply(state.models)


@router.post("/reload")
async def reload(request: Request) -> wire.ModelsReply:
    """Follows the store: aliases that point elsewhere and newer versions of bare names. SIGHUP does the same."""
    state = route_state(request)
    await state.registry.reload()
    return models_reply(state.models)
