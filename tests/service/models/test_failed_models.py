"""Models that cannot be loaded or warmed up, beside models that can."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from agentprm.errors import InternalError
from model_store.errors import CheckpointError
from model_store.format.store import Checkpoint
from service.app import create_app
from service.engine.contract import SequenceScores
from service.engine.echo import EchoEngine
from service.models import load as load_module
from service.models.load import LoadedModel, load_models
from service.settings import Settings
from tests.service.echo_app import LONGEST, BrokenEngine, item, loaded, metric
from tests.service.echo_app import serving as echo_serving
from tests.service.models.test_registry import TOKEN, Shop, all_have_left, change, score


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.publish("2")
    return shop


@asynccontextmanager
async def serving(
    shop: Shop, *models: str, failed: Mapping[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that was started with these models and with those that could not be loaded."""
    wanted = [*models, *(failed or {})]
    settings = Settings(
        model_store=shop.store.root, score_cache_items=0, api_keys_file=shop.root / "keys", models=tuple(wanted)
    )
    first = [shop.load(shop.store.resolve(model), settings) for model in models]
    app = create_app(first, settings, failed=failed, load=shop.load)
    async with (
        asyncio.timeout(LONGEST),
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://echo",
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as client,
    ):
        yield client


async def refusal(client: httpx.AsyncClient, model: str) -> str:
    """Returns why a model does not score; asserts that it is 503."""
    reply = await client.post("/score_step", json={"items": [item()], "model": model})
    assert reply.status_code == 503, reply.text
    assert reply.json()["error"]["code"] == "not_ready"
    return str(reply.json()["error"]["message"])


def test_a_model_that_fails_its_warm_up_is_told_and_the_others_serve(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        shop.broken.add("echo@2")
        async with serving(shop, "echo@1", "echo@2") as client:
            assert [await score(client), await score(client, "demo"), await score(client, "echo@1")] == ["1"] * 3
            for name in ("echo@2", "echo"):
                assert (await refusal(client, name)).startswith("echo@2 is not served: echo@2 failed its warm-up: ")
            ready = await client.get("/ready")
            assert (ready.status_code, ready.json()) == (200, {"status": "ready", "failed": "echo@2"})
            assert (await client.get("/health")).status_code == 200
            assert [model["version"] for model in (await client.get("/models")).json()["models"]] == ["1"]
            assert await metric(client, 'agentprm_model_failed{model="echo@2"}') == 1
            await all_have_left()
            assert 'agentprm_model_info{device="cpu",digest="' in (await client.get("/metrics")).text
            assert (await client.get("/metrics")).text.count('model="echo@2"') == 1, "no other series"

    asyncio.run(scenario())
    assert "echo@2 failed its warm-up" in caplog.text


def test_a_model_that_cannot_be_loaded_is_told_and_the_others_serve(shop: Shop) -> None:
    async def scenario() -> None:
        async with serving(shop, "echo@1", failed={"echo@2": "echo@2 has no weights"}) as client:
            assert await score(client) == "1"
            assert await refusal(client, "echo@2") == "echo@2 is not served: echo@2 has no weights"
            assert (await client.get("/ready")).json() == {"status": "ready", "failed": "echo@2"}

    asyncio.run(scenario())


def test_nothing_starts_if_the_default_model_fails_its_warm_up(shop: Shop) -> None:
    async def scenario() -> None:
        shop.broken.add("echo@1")
        async with serving(shop, "echo@1", "echo@2"):
            pytest.fail("it started")

    with pytest.raises(InternalError, match=r"^echo@1 failed its warm-up"):
        asyncio.run(scenario())


def test_a_failed_model_is_tried_again_by_a_reload_or_a_load(shop: Shop) -> None:
    async def scenario(act: str, body: dict[str, str]) -> None:
        shop.broken.add("echo@2")
        async with serving(shop, "echo@1", "echo@2") as client:
            await refusal(client, "echo@2")
            shop.broken.clear()
            assert [version for version, _, _ in await change(client, act, **body)] == ["1", "2"]
            assert await score(client, "echo@2") == "2"
            assert (await client.get("/ready")).json() == {"status": "ready"}
            assert "agentprm_model_failed{" not in (await client.get("/metrics")).text

    asyncio.run(scenario("reload", {}))
    asyncio.run(scenario("load", {"model": "echo@2"}))


def test_other_changes_neither_wait_for_a_failed_model_nor_fail_with_it(shop: Shop) -> None:
    async def scenario() -> None:
        shop.broken.add("echo@2")
        async with serving(shop, "echo@1", "echo@2") as client:
            shop.publish("3")
            tried = shop.engines["echo@2"]
            assert [version for version, _, _ in await change(client, "load", model="echo@3")] == ["1", "3"]
            assert shop.engines["echo@2"] is tried, "it was not loaded again"
            assert [version for version, _, _ in await change(client, "reload")] == ["1", "3"]
            assert shop.engines["echo@2"] is not tried
            await refusal(client, "echo@2")
            refused = await client.post("/admin/load", json={"model": "echo@2"})
            assert refused.status_code == 500
            assert "echo@2 failed its warm-up" in refused.json()["error"]["message"]
            assert await score(client, "echo") == "3"

    asyncio.run(scenario())


def test_a_failed_model_can_be_given_up(shop: Shop) -> None:
    async def scenario() -> None:
        async with serving(shop, "echo@1", failed={"echo@2": "echo@2 has no weights"}) as client:
            assert [version for version, _, _ in await change(client, "unload", model="echo@2")] == ["1"]
            assert (await client.get("/ready")).json() == {"status": "ready"}
            gone = await client.post("/score_step", json={"items": [item()], "model": "echo@2"})
            assert gone.status_code == 404

    asyncio.run(scenario())


def test_checkpoints_load_beside_one_that_does_not_but_the_default_must(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(checkpoint: Checkpoint, _: Settings) -> LoadedModel:
        manifest = checkpoint.manifest
        if manifest.version == "2":
            raise CheckpointError("echo@2 has no weights")
        return replace(loaded(BrokenEngine()), manifest=manifest)

    def settings(*models: str) -> Settings:
        return Settings(model_store=shop.store.root, models=models)

    monkeypatch.setattr(load_module, "load_checkpoint", load)
    shop.publish("3")
    models, failed = load_models(settings("echo@1", "echo@2", "echo@3"))
    assert [model.manifest.reference for model in models] == ["echo@1", "echo@3"]
    assert failed == {"echo@2": "echo@2 has no weights"}
    assert "echo@2 is not served: echo@2 has no weights" in caplog.text
    with pytest.raises(CheckpointError, match=r"^echo@2 has no weights$"):
        load_models(settings("echo@2", "echo@1"))


class FewPositions(EchoEngine):
    """Has positions for five tokens and a vocabulary of one."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        assert all(len(ids) <= 5 and not any(ids) for ids in token_ids)
        return super().score(token_ids, reads)


def test_the_warm_up_fits_a_model_of_few_positions_and_tokens() -> None:
    async def scenario() -> None:
        model = loaded(FewPositions())
        async with echo_serving(replace(model, manifest=replace(model.manifest, context_length=5))) as client:
            assert (await client.get("/ready")).json() == {"status": "ready"}

    asyncio.run(scenario())
