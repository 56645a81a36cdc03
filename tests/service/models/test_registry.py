"""Models come and go while requests run; each request is answered by the model it began with."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model_store.format.store import Checkpoint, Store
from service.access.api_keys import new_key
from service.app import create_app
from service.engine.contract import DeviceLost
from service.models.load import LoadedModel
from service.settings import Settings
from tests.service.echo_app import LONGEST, MANIFEST, PATIENCE, GatedEngine, item, loaded
from tests.service.score_cache.caching import until

TOKEN, LINE = new_key("ops", "score,record,admin")


class Shop:
    """A store of echo checkpoints, and the engines that were loaded from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.store.root.mkdir()
        self.engines: dict[str, GatedEngine] = {}
        self.prepared: dict[str, GatedEngine] = {}
        self.broken: set[str] = set()
        self.slowly: Callable[[Checkpoint, Settings], LoadedModel] | None = None
        (root / "keys").write_text(LINE)
        self.publish("1")
        self.store.set_alias("demo", "echo@1")

    def publish(self, version: str) -> None:
        source = self.root / f"source-{version}"
        source.mkdir()
        (source / "config.json").write_text(json.dumps({"version": version}))
        self.store.publish(source, replace(MANIFEST, version=version))

    def load(self, checkpoint: Checkpoint, _: Settings) -> LoadedModel:
        reference = checkpoint.manifest.reference
        engine = self.engines[reference] = self.prepared.pop(reference) if reference in self.prepared else GatedEngine()
        model = replace(loaded(engine), manifest=checkpoint.manifest)
        if reference in self.broken:
            engine.score = None  # type: ignore[assignment]
        return model

    def app(self, settings: Settings) -> FastAPI:
        def load(checkpoint: Checkpoint, settings: Settings) -> LoadedModel:
            return (self.slowly or self.load)(checkpoint, settings)

        return create_app([load(self.store.resolve("demo"), settings)], settings, load=load)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[httpx.AsyncClient]:
        app = self.app(Settings(model_store=self.store.root, score_cache_items=0, api_keys_file=self.root / "keys"))
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            asyncio.timeout(LONGEST),
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://echo", headers=headers) as client,
        ):
            yield client


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def score(client: httpx.AsyncClient, model: str | None = None) -> str:
    """Returns the version that answered."""
    reply = await client.post("/score_step", json={"items": [item()], **({"model": model} if model else {})})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["model"]["version"])


async def change(client: httpx.AsyncClient, act: str, **body: Any) -> list[tuple[str, list[str], bool]]:
    """Makes a change and returns what is served then: version, aliases, whether it is the default."""
    reply = await client.post(f"/admin/{act}", json=body)
    assert reply.status_code == 200, reply.text
    return [(model["version"], model["aliases"], model["default"]) for model in reply.json()["models"]]


def test_a_model_is_loaded_beside_the_default_and_let_go_again(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("10")
            assert await change(client, "load", model="echo") == [("1", ["demo"], True), ("10", [], False)]
            answers = [await score(client, name) for name in (None, "demo", "echo", "echo@1", "echo@10")]
            assert answers == ["1", "1", "10", "1", "10"]
            assert await change(client, "unload", model="echo@10") == [("1", ["demo"], True)]
            assert (await client.post("/score_step", json={"items": [item()], "model": "echo@10"})).status_code == 404

    asyncio.run(scenario())


def test_a_request_finishes_on_the_model_it_began_with(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            old = shop.engines["echo@1"]
            await change(client, "load", model="echo@2")  # before, for both share the engine thread
            async with old.held():
                first = asyncio.create_task(score(client))
                await old.entered()
                assert await change(client, "alias", alias="demo", model="echo@2") == [("2", ["demo"], True)]
                assert not first.done()
            assert await first == "1"
            assert await score(client) == "2"

    asyncio.run(scenario())


def test_a_reload_follows_an_alias_that_somebody_else_pointed(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            shop.store.set_alias("demo", "echo@2")
            assert await score(client) == "1"
            assert await change(client, "reload") == [("2", ["demo"], True)]
            assert await score(client) == "2"

    asyncio.run(scenario())


def test_what_cannot_be_loaded_changes_nothing(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            shop.broken.add("echo@2")
            (shop.store.root / "echo" / "3").mkdir()
            (shop.store.root / "echo" / "3" / "prm.json").write_text("{")
            wrong = {"echo@2": 500, "echo@3": 422, "nobody": 404, "../echo": 404}
            for model, status in wrong.items():
                for act, body in (("load", {"model": model}), ("alias", {"alias": "demo", "model": model})):
                    reply = await client.post(f"/admin/{act}", json=body)
                    assert reply.status_code == status, reply.text
            assert shop.store.aliases() == {"demo": "echo@1"}
            assert await score(client) == "1"
            assert len((await client.get("/models")).json()["models"]) == 1

    asyncio.run(scenario())


def test_a_worker_that_ends_while_a_model_loads_is_told_and_changes_nothing(shop: Shop) -> None:
    def end(*_: object) -> LoadedModel:
        raise DeviceLost("the worker on cpu has ended while it loaded the model (worker on cpu was ended by SIGKILL)")

    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            shop.slowly = end
            reply = await client.post("/admin/load", json={"model": "echo@2"})
            assert reply.status_code == 500
            assert "the worker on cpu has ended while it loaded the model" in reply.json()["error"]["message"]
            assert await score(client) == "1"

    asyncio.run(scenario())


def test_what_the_defaults_name_stands_for_in_the_store_is_not_unloaded_either(shop: Shop) -> None:
    """The service still serves what it stood for, and would have nothing left."""

    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            await change(client, "load", model="echo@2")
            shop.store.set_alias("demo", "echo@2")
            refused = await client.post("/admin/unload", json={"model": "echo@2"})
            assert refused.status_code == 422
            assert [await score(client), await score(client, "echo@2")] == ["1", "2"]

    asyncio.run(scenario())


def test_a_change_runs_to_its_end_though_its_caller_leaves(shop: Shop) -> None:
    async def scenario() -> None:
        loading, go_on = threading.Event(), threading.Event()
        load = shop.load

        def slowly(checkpoint: Checkpoint, settings: Settings) -> LoadedModel:
            loading.set()
            assert go_on.wait(PATIENCE)
            return load(checkpoint, settings)

        async with shop.serving() as client:
            shop.publish("2")
            shop.slowly = slowly
            leaving = asyncio.create_task(change(client, "alias", alias="demo", model="echo@2"))
            assert await asyncio.to_thread(loading.wait, PATIENCE)
            leaving.cancel()
            await asyncio.wait({leaving})
            reloading = asyncio.create_task(change(client, "reload"))
            go_on.set()
            assert await reloading == [("2", ["demo"], True)], "in turn, after the change that nobody waits for"
            assert list(shop.engines) == ["echo@1", "echo@2"], "loaded once"

    asyncio.run(scenario())


def test_the_default_model_stays(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            refused = await client.post("/admin/unload", json={"model": "demo"})
            assert refused.status_code == 422
            assert "default" in refused.json()["error"]["message"]
            assert await score(client) == "1"

    asyncio.run(scenario())


async def all_have_left() -> None:
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "unloading model"))


def test_the_series_of_a_model_come_and_go_with_it(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            await change(client, "load", model="echo@2")
            assert "agentprm_model_info{" in (await client.get("/metrics")).text
            assert 'model="echo@2"' in (await client.get("/metrics")).text
            await change(client, "unload", model="echo@2")
            await all_have_left()
            assert 'model="echo@2"' not in (await client.get("/metrics")).text

    asyncio.run(scenario())


def test_a_model_that_is_loaded_again_before_it_has_left_keeps_its_series(shop: Shop) -> None:
    async def scenario() -> None:
        async with shop.serving() as client:
            shop.publish("2")
            await change(client, "load", model="echo@2")
            old, new = shop.engines["echo@2"], GatedEngine()
            shop.prepared["echo@2"] = new
            async with new.held():
                async with old.held():
                    last = asyncio.create_task(score(client, "echo@2"))
                    await old.entered()
                    await change(client, "unload", model="echo@2")
                    loading = asyncio.create_task(change(client, "load", model="echo@2"))
                    await until(lambda: not shop.prepared)
                await new.entered()
                assert await last == "2"
                await all_have_left()
            await loading
            assert await score(client, "echo@2") == "2"
            text = (await client.get("/metrics")).text
            assert 'agentprm_queue_tokens{model="echo@2"} 0.0' in text
            assert 'agentprm_model_info{device="cpu",digest=' in text
            assert text.count("agentprm_model_info{") == 2

    asyncio.run(scenario())
