"""Engines that fail, batchers that die, and a service outside its lifespan."""

import asyncio

import httpx

from service.engine.contract import Unavailable
from tests.service.echo_app import BrokenEngine, ThreadDied, WorkersEngine, item, metric, proposal, serving


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


def test_while_the_last_worker_is_started_again_the_service_lives_and_is_not_ready() -> None:
    async def scenario() -> None:
        engine = WorkersEngine()
        async with serving(engine, score_cache_items=100) as client:
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200
            workers = engine.workers
            workers.running, workers.down = 0, 1
            engine.failure = Unavailable("being started again", retry_after=2.5)
            assert [(await client.get(route)).status_code for route in ("/health", "/ready")] == [200, 503]
            assert "the workers of echo@1" in (await client.get("/ready")).json()["error"]["message"]
            later = await client.post("/score_step", json={"items": [item("another task")]})
            assert (later.status_code, later.headers["retry-after"]) == (503, "3")
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200, "its score is known"
            workers.running, workers.down, workers.restarts, engine.failure = 1, 0, 1, None
            assert [(await client.get(route)).status_code for route in ("/health", "/ready")] == [200, 200]
            assert (await client.post("/score_step", json={"items": [item("another task")]})).status_code == 200
            assert await metric(client, 'agentprm_worker_restarts_total{model="echo@1"}') == 1

    asyncio.run(scenario())


def test_one_worker_of_several_is_down_and_the_service_is_ready() -> None:
    async def scenario() -> None:
        engine = WorkersEngine()
        async with serving(engine) as client:
            engine.workers.running, engine.workers.down = 1, 1
            assert [(await client.get(route)).status_code for route in ("/health", "/ready")] == [200, 200]
            assert await metric(client, 'agentprm_workers{model="echo@1",state="down"}') == 1
            assert await metric(client, 'agentprm_workers{model="echo@1",state="running"}') == 1

    asyncio.run(scenario())


def test_workers_that_are_given_up_ask_for_a_new_process_before_anybody_asks_for_a_score() -> None:
    async def scenario() -> None:
        engine = WorkersEngine()
        async with serving(engine) as client:
            engine.workers.running, engine.workers.down, engine.workers.lost = 0, 1, True
            assert [(await client.get(route)).status_code for route in ("/health", "/ready")] == [503, 503]

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
