"""Imported checkpoints behind the service's own routes."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from service.app import create_app
from service.models.load import load_models
from service.settings import Settings
from tests.service.echo_app import LONGEST


@asynccontextmanager
async def serving(store: Path, names: Sequence[str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service over some checkpoints of a store, on the CPU."""
    settings = Settings(model_store=store, models=tuple(names), device="cpu")
    app = create_app(load_models(settings)[0], settings)
    transport = httpx.ASGITransport(app)
    async with (
        asyncio.timeout(LONGEST),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://imported") as client,
    ):
        yield client


async def results(
    client: httpx.AsyncClient, route: str, model: str, items: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The results of a request that must be answered."""
    reply = await client.post(route, json={"model": model, "items": items})
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["results"]
    return found
