"""Engines that fail, batchers that die, and a service outside its lifespan."""

import asyncio

import httpx

from tests.service.echo_app import BrokenEngine, ThreadDied, item, metric, proposal, serving


def test_an_engine_failure_is_500_without_internals_and_the_next_request_works() -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            engine.failure = RuntimeError("secret path /root")
            failed = await client.post("/score_step", json={"items": [item()]})
            assert failed.status_code == 500
            assert failed.json()["error"]["details"]["id"]
            assert "secret" not in failed.text
            engine.failure = None
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200

    asyncio.run(scenario())


def test_a_dead_batcher_is_not_ready_and_asks_for_a_new_process() -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            assert (await client.get("/ready")).status_code == 200
            assert await metric(client, "agentprm_ready") == 1
            engine.failure = RuntimeError()
            assert (await client.post("/rank_actions", json={"items": [proposal("a")]})).status_code == 500
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 200
            engine.failure = ThreadDied()
            assert (await client.post("/rank_actions", json={"items": [proposal("a")]})).status_code == 500
            red = await client.get("/ready")
            assert (red.status_code, red.json()["error"]["code"]) == (503, "not_ready")
            assert await metric(client, "agentprm_ready") == 0
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 503
            sick = await client.get("/health")
            assert sick.status_code == 503
            assert "echo@1" in sick.json()["error"]["message"]

    asyncio.run(scenario())


def test_a_service_is_not_ready_before_its_start_and_after_its_end() -> None:
    async def scenario() -> None:
        async with serving() as client:
            pass
        transport = client._transport
        async with httpx.AsyncClient(transport=transport, base_url="http://echo") as late:
            assert (await late.get("/ready")).status_code == 503
            assert (await late.get("/health")).status_code == 200
            assert (await late.post("/score_step", json={"items": [item()]})).status_code == 503

    asyncio.run(scenario())
