"""Imported families behind the service's own routes, several in one service."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from service.app import create_app
from service.models.load import load_models
from service.settings import Settings
from tests.model_store.authors import FAMILIES, STEPS, TASK
from tests.service.echo_app import LONGEST

SERVED = {
    "padded": "Llama 3 classifier whose padding ends turns",
    "separated": "TRL with another separator",
    "rlhflow": "RLHFlow",
    "versaprm": "VersaPRM",
    "openr": "OpenR",
    "reasonflux": "ReasonFlux",
}


def publish(tmp_path: Path) -> dict[str, list[float]]:
    """Imports the families; returns the authors' promises of every step."""
    expected = {}
    for name, title in SERVED.items():
        family, source = FAMILIES[title], tmp_path / name
        tokenizer = family.make(source)
        preset = None if family.recognised else family.preset
        add_checkpoint(Store(tmp_path / "store"), source, ImportOptions(name, "1", preset=preset, **family.options))
        expected[name] = family.promises(source, tokenizer, TASK, STEPS)
    return expected


def test_imported_families_score_over_http_as_their_authors_code(tmp_path: Path) -> None:
    expected = publish(tmp_path)
    settings = Settings(model_store=tmp_path / "store", models=tuple(SERVED), device="cpu")

    async def scenario() -> None:
        app = create_app(load_models(settings)[0], settings)
        transport = httpx.ASGITransport(app)
        async with (
            asyncio.timeout(LONGEST),
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://families") as client,
        ):
            for name, promises in [*expected.items()] * 2:  # cold, then warm
                await assert_scored(client, name, promises)

    asyncio.run(scenario())


async def assert_scored(client: httpx.AsyncClient, model: str, promises: Sequence[float]) -> None:
    steps = [{"observation": "", "action": step} for step in STEPS]
    last: dict[str, Any] = {"task": TASK, "steps": steps}
    (scored,) = await results(client, "/score_trajectory", model, last)
    assert [step["promise"] for step in scored["steps"]] == pytest.approx(promises, abs=1e-5), model
    (stepped,) = await results(client, "/score_step", model, last)
    assert stepped["promise"] == pytest.approx(promises[-1], abs=1e-5)
    proposed = {"task": TASK, "steps": steps[:-1], "observation": "", "candidates": ["So", STEPS[-1]]}
    (ranked,) = await results(client, "/rank_actions", model, proposed)
    found = {row["index"]: row["promise"] for row in ranked["ranking"]}
    assert found[1] == pytest.approx(promises[-1], abs=1e-5)


async def results(client: httpx.AsyncClient, route: str, model: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    reply = await client.post(route, json={"model": model, "items": [item]})
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["results"]
    return found
