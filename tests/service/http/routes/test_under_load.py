"""Replies to callers while others use the service too."""

import asyncio

import httpx
from fastapi import FastAPI
from starlette.middleware import Middleware

from service.http.middleware.asgi import App, Receive, Scope, Send
from tests.service.echo_app import PATIENCE, GatedEngine, item, metric, pass_time, serving


def test_callers_share_a_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine) as client:
            async with engine.held():
                first = asyncio.create_task(client.post("/score_step", json={"items": [item("a")]}))
                await engine.entered()
                others = [
                    asyncio.create_task(client.post("/score_step", json={"items": [item(task)]})) for task in "bc"
                ]
                await queued_tokens(client, at_least=2 * len(engine.calls[-1][0]))
            await asyncio.gather(first, *others)
        assert len(engine.calls[-1]) == 2

    asyncio.run(scenario())


async def queued_tokens(client: httpx.AsyncClient, at_least: int) -> None:
    """Returns when that many tokens wait."""
    async with asyncio.timeout(PATIENCE):
        while await metric(client, 'agentprm_queue_tokens{model="echo@1"}') < at_least:  # noqa: ASYNC110 - HTTP offers no event
            await asyncio.sleep(0)


def test_a_full_queue_answers_429_with_retry_after() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_queue_tokens=30) as client:
            async with engine.held():
                admitted = [asyncio.create_task(client.post("/score_step", json={"items": [item()]}))]
                await engine.entered()
                admitted.append(asyncio.create_task(client.post("/score_step", json={"items": [item()]})))
                await queued_tokens(client, at_least=1)
                refused = await client.post("/score_step", json={"items": [item()]})
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) >= 1
            assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
            assert await metric(client, 'agentprm_rejected_total{reason="overloaded"}') == 1

    asyncio.run(scenario())


async def order_of_computing(
    engine: GatedEngine, *requests: tuple[httpx.AsyncClient, str, dict[str, str]]
) -> list[int]:
    """Indices of the requests in the order of their computing; all of them come while the engine is busy."""
    client = requests[0][0]
    async with engine.held():
        running = [asyncio.create_task(client.post("/score_step", json={"items": [item("t")]}))]
        await engine.entered()
        shortest, waiting = len(engine.calls[-1][0]), 0
        for number, (sender, route, headers) in enumerate(requests, 1):
            body = {"items": [item("t" * (1 + number))]}
            running.append(asyncio.create_task(sender.post(route, json=body, headers=headers)))
            waiting += shortest + number
            await queued_tokens(client, at_least=waiting)
    assert {reply.status_code for reply in await asyncio.gather(*running)} == {200}
    return [len(ids) - shortest - 1 for call in engine.calls[-len(requests) :] for ids in call]


def test_a_step_is_scored_before_a_whole_trajectory_unless_the_caller_says_otherwise() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_batch_tokens=1) as client:
            bulk, interactive = {"x-priority": "bulk"}, {"x-priority": "interactive"}
            assert await order_of_computing(engine, (client, "/score_trajectory", {}), (client, "/score_step", {})) == [
                1,
                0,
            ]
            said = [(client, "/score_step", bulk), (client, "/score_trajectory", interactive)]
            assert await order_of_computing(engine, *said) == [1, 0]

    asyncio.run(scenario())


def test_a_caller_with_many_requests_lets_another_address_in_between() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_batch_tokens=1) as client:
            assert isinstance(client._transport, httpx.ASGITransport)
            elsewhere = httpx.ASGITransport(client._transport.app, client=("192.0.2.1", 1))
            async with httpx.AsyncClient(transport=elsewhere, base_url="http://echo") as other:
                senders = [client, client, client, other]
                order = await order_of_computing(engine, *((sender, "/score_step", {}) for sender in senders))
                assert order == [0, 3, 1, 2]

    asyncio.run(scenario())


def test_a_deadline_that_passes_answers_504_without_a_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine) as client:
            async with engine.held():
                first = asyncio.create_task(client.post("/score_step", json={"items": [item()]}))
                await engine.entered()
                late = await client.post("/score_step", json={"items": [item()]}, headers={"x-deadline-ms": "1"})
                assert late.status_code == 504
                assert late.json()["error"]["code"] == "deadline_exceeded"
            assert (await first).status_code == 200
        assert len(engine.calls) == 2  # the warm-up and the first

    asyncio.run(scenario())


def test_a_deadline_counts_from_the_arrival_of_the_body_and_not_from_its_validation() -> None:
    def slow_to_validate(app: App) -> App:
        async def validate_for_ten_seconds(scope: Scope, receive: Receive, send: Send) -> None:
            pass_time(10)
            await app(scope, receive, send)

        return validate_for_ten_seconds

    async def scenario() -> None:
        async with serving() as client:
            assert isinstance(client._transport, httpx.ASGITransport)
            app = client._transport.app
            assert isinstance(app, FastAPI)
            app.user_middleware.append(Middleware(slow_to_validate))  # the innermost layer
            for milliseconds, status in (("5000", 504), ("60000", 200)):
                headers = {"x-deadline-ms": milliseconds}
                reply = await client.post("/score_step", json={"items": [item()]}, headers=headers)
                assert reply.status_code == status

    asyncio.run(scenario())


def test_a_client_that_leaves_frees_its_place_in_the_queue() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine) as client:
            async with engine.held():
                first = asyncio.create_task(client.post("/score_step", json={"items": [item()]}))
                await engine.entered()
                leaving = asyncio.create_task(client.post("/score_step", json={"items": [item()]}))
                await queued_tokens(client, at_least=1)
                leaving.cancel()
                await asyncio.wait({leaving})
                assert await metric(client, 'agentprm_queue_tokens{model="echo@1"}') == 0
            await first
        assert len(engine.calls) == 2

    asyncio.run(scenario())
