"""The routes that change which models are served, for keys with the scope ``admin``."""

from typing import Final

from fastapi import APIRouter

from agentprm import wire
from agentprm.errors import Forbidden, InternalError, InvalidRequest, ModelNotFound, Unauthorized
from service.http.openapi import documented_errors
from service.http.routes.probes import tell_models
from service.models.catalog import Models
from service.models.registry import Registry

PREFIX: Final = "/admin"
ROUTES: Final = tuple(f"{PREFIX}/{act}" for act in ("load", "unload", "alias", "reload"))


def build_admin_router(registry: Registry, models: Models) -> APIRouter:
    errors = documented_errors(Unauthorized, Forbidden, InvalidRequest, ModelNotFound, InternalError)
    router = APIRouter(prefix=PREFIX, tags=["admin"], responses=errors)

    @router.post("/load")
    async def load(body: wire.ModelReference) -> wire.ModelsReply:
        """Serves one more model: an alias, a name (its newest version) or `name@version` of the store."""
        await registry.load(body.model)
        return tell_models(models)

    @router.post("/unload")
    async def unload(body: wire.ModelReference) -> wire.ModelsReply:
        """Lets go of a model; requests that run on it are answered by it. The default model stays."""
        await registry.unload(body.model)
        return tell_models(models)

    @router.post("/alias")
    async def alias(body: wire.AliasTarget) -> wire.ModelsReply:
        """Points an alias of the store to a checkpoint, once that is loaded, and serves it under the alias."""
        await registry.point(body.alias, body.model)
        return tell_models(models)

    @router.post("/reload")
    async def reload() -> wire.ModelsReply:
        """Follows the store: aliases that point elsewhere and newer versions of bare names. SIGHUP does the same."""
        await registry.reload()
        return tell_models(models)

    return router
