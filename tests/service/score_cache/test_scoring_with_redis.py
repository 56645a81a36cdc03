"""The whole service over a failing Redis: every reply is right, and only the metrics show the failure."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest

from service.redis_client.breaker import FAILURES, State
from service.score_cache.redis_tier import RedisTier
from testbed.processes import HOST, PATIENCE, free_port
from testbed.redis import RedisServer, Start
from tests.service.echo_app import GatedEngine, item, metric, serving
from tests.service.score_cache.caching import BRIEF, samples, warnings
from tests.service.score_cache.proxy import Fault, altering, hanging, proxied, swapping
from tests.service.score_cache.test_faults import READING, budget_for

TASKS = ("Craft a table.", "Find the key.", "Open the door.")
OTHERS = ("Wash the plate.", "Light the lamp.")
UNWRITTEN = "agentprm_score_cache_unwritten"
FAULTS = {
    **READING,
    "gives everyone the score of another": (swapping, "value"),
    "gives everyone a score that is not quite right": (altering, "value"),
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pauses between probes, so that the breaker closes at once."""
    monkeypatch.setattr("service.app.RedisTier", partial(RedisTier, pause=0.01))


async def scored(client: httpx.AsyncClient, *tasks: str) -> list[Any]:
    reply = await client.post("/score_trajectory", json={"items": [item(task, "look", "go") for task in tasks]})
    assert reply.status_code == 200
    return [result["steps"] for result in reply.json()["results"]]


async def right(*tasks: str) -> list[Any]:
    """The scores of a service without a score cache."""
    async with serving() as client:
        return await scored(client, *tasks)


async def errors(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    found = samples((await client.get("/metrics")).text, "agentprm_score_cache_errors_total")
    return {(labels["operation"], labels["kind"]): n for labels, n in found if n}


async def lookups(client: httpx.AsyncClient, result: str) -> float:
    return await metric(client, f'agentprm_score_cache_lookups_total{{result="{result}",tier="redis"}}')


async def breaker(client: httpx.AsyncClient, operation: str) -> float:
    return await metric(client, f'agentprm_score_cache_breaker_state{{operation="{operation}"}}')


async def reached(client: httpx.AsyncClient, sample: str, right: Callable[[float], bool]) -> None:
    """Returns once a metric has the expected value."""
    async with asyncio.timeout(PATIENCE):
        while not right(await metric(client, sample)):  # noqa: ASYNC110 - HTTP offers no event
            await asyncio.sleep(0.002)


async def all_written(client: httpx.AsyncClient) -> None:
    await reached(client, UNWRITTEN, lambda waiting: waiting == 0)


async def known(client: httpx.AsyncClient, engine: GatedEngine, *tasks: str) -> None:
    """Returns once these tasks are scored without a forward; all scores until then must be right."""
    expected = await right(*tasks)
    async with asyncio.timeout(PATIENCE):
        while True:
            forwards = len(engine.calls)
            assert await scored(client, *tasks) == expected
            if len(engine.calls) == forwards:
                return


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
def test_every_reply_is_right_and_scores_are_shared_again_afterwards(
    server: RedisServer, fault: Fault, kind: str
) -> None:
    async def scenario() -> None:
        expected, engine = await right(*TASKS), GatedEngine()
        async with (
            proxied(server.port) as proxy,
            serving(engine, redis_url=proxy.url, redis_timeout_ms=min(1000, 1000 * budget_for(kind))) as client,
        ):
            assert await scored(client, *TASKS) == expected
            await known(client, engine, *TASKS)
            proxy.fault = fault
            for _ in range(FAILURES + 1):
                assert await scored(client, *TASKS) == expected
            assert (await errors(client))[("read", kind)] >= FAILURES
            assert (await client.get("/ready")).status_code == 200
            proxy.heal()
            await known(client, engine, *OTHERS)
            await known(client, engine, *TASKS)

    asyncio.run(scenario())


def test_what_one_service_scored_another_does_not_compute(server: RedisServer) -> None:
    async def scenario() -> None:
        expected, engine = await right(*TASKS), GatedEngine()
        async with serving(redis_url=server.url) as first:
            assert await scored(first, *TASKS) == expected
        async with serving(engine, redis_url=server.url, redis_timeout_ms=1000) as second:
            forwards = len(engine.calls)
            assert await scored(second, *TASKS) == expected
            assert len(engine.calls) == forwards
            assert await lookups(second, "hit") == 2 * len(TASKS)

    asyncio.run(scenario())


def test_a_redis_that_hangs_is_asked_by_three_requests_and_by_no_more(
    server: RedisServer, caplog: pytest.LogCaptureFixture, brief_grace: Callable[[], None]
) -> None:
    async def scenario() -> None:
        expected = await right(*TASKS)
        async with proxied(server.port) as proxy, serving(redis_url=proxy.url, redis_timeout_ms=1000 * BRIEF) as client:
            await reached(client, 'agentprm_score_cache_breaker_state{operation="read"}', lambda state: state == 0)
            brief_grace()
            proxy.fault = hanging
            for _ in range(FAILURES + 5):
                assert await scored(client, *TASKS) == expected
            assert proxy.reads() == FAILURES
            assert await lookups(client, "miss") == FAILURES * 2 * len(TASKS)
            assert await lookups(client, "skipped") == 5 * 2 * len(TASKS)
            assert await breaker(client, "read") != State.CLOSED

    asyncio.run(scenario())
    assert sum(line.startswith("a read of the score cache failed (timeout)") for line in warnings(caplog)) == 1


def test_one_that_is_down_at_the_start_and_killed_later_is_used_whenever_it_is_there(
    server: RedisServer, caplog: pytest.LogCaptureFixture, brief_start: None
) -> None:
    async def scenario() -> None:
        expected, engine = await right(*TASKS), GatedEngine()
        server.kill()
        async with serving(engine, redis_url=server.url, redis_timeout_ms=1000) as client:
            for _ in range(2):
                assert (await client.get("/ready")).status_code == 200
                assert await scored(client, *TASKS) == expected
                server.start()
                await known(client, engine, *TASKS, *OTHERS)
                await all_written(client)
                assert server.command("DBSIZE") >= 2 * len(TASKS)
                server.kill()
            assert {kind for _, kind in await errors(client)} == {"connection"}

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert "reading scores from Redis: well again after" in caplog.text


def test_one_that_dies_within_a_request_costs_no_reply(server: RedisServer) -> None:
    async def scenario() -> None:
        expected, engine = await right(*TASKS), GatedEngine()
        async with (
            proxied(server.port) as proxy,
            serving(engine, redis_url=proxy.url, redis_timeout_ms=1000) as client,
        ):
            await known(client, engine, *OTHERS)
            asked = proxy.reads()
            server.hang()
            requests = [asyncio.create_task(scored(client, *TASKS)) for _ in range(5)]
            async with asyncio.timeout(PATIENCE):
                while proxy.reads() < asked + len(requests):  # noqa: ASYNC110 - a proxy offers no event
                    await asyncio.sleep(0.002)
            server.kill()
            assert await asyncio.gather(*requests) == [expected] * len(requests)
            server.start()
            await known(client, engine, *TASKS)

    asyncio.run(scenario())


def test_a_full_one_is_read_and_what_waits_is_written_when_it_has_room(server: RedisServer) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, redis_url=server.url, redis_timeout_ms=1000) as client:
            await known(client, engine, *TASKS)
            await all_written(client)
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            server.command("CONFIG", "SET", "maxmemory", "1")
            assert await scored(client, *OTHERS) == await right(*OTHERS)
            await reached(client, 'agentprm_score_cache_errors_total{kind="oom",operation="write"}', lambda n: n >= 1)
            await known(client, engine, *TASKS)
            assert await metric(client, UNWRITTEN) == 2 * len(OTHERS)
            assert (await errors(client)).keys() == {("write", "oom")}
            server.command("CONFIG", "SET", "maxmemory", "0")
            await all_written(client)
            await known(client, engine, *OTHERS)

    asyncio.run(scenario())


def test_one_that_became_a_replica_is_read_and_its_promotion_lets_what_waits_in(server: RedisServer) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, redis_url=server.url, redis_timeout_ms=1000) as client:
            await known(client, engine, *TASKS)
            await all_written(client)
            server.command("REPLICAOF", HOST, free_port())
            assert await scored(client, *OTHERS) == await right(*OTHERS)
            await known(client, engine, *TASKS)
            await reached(
                client, 'agentprm_score_cache_errors_total{kind="readonly",operation="write"}', lambda n: n > 0
            )
            assert await metric(client, UNWRITTEN) == 2 * len(OTHERS)
            assert (await errors(client)).keys() == {("write", "readonly")}
            server.command("REPLICAOF", "NO", "ONE")
            await all_written(client)
            await known(client, engine, *OTHERS)

    asyncio.run(scenario())


def test_what_others_left_under_the_keys_is_computed_anew_and_replaced(server: RedisServer) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, redis_url=server.url, redis_timeout_ms=1000) as client:
            await scored(client, *TASKS)
            await all_written(client)
            for number, key in enumerate(server.command("KEYS", "agentprm:*:*")):
                server.command("DEL", key)
                server.command(*(("RPUSH", key, "a") if number % 2 else ("SET", key, "0.25")))
            assert await scored(client, *TASKS) == await right(*TASKS)
            assert (await errors(client)) == {("read", "value"): len(TASKS)}
            await known(client, engine, *TASKS)

    asyncio.run(scenario())


def test_with_a_wrong_password_every_reply_is_right_and_the_password_stays_secret(
    start: Start, caplog: pytest.LogCaptureFixture, brief_start: None
) -> None:
    async def scenario() -> None:
        server = start("--requirepass", "another", password="another")
        async with serving(redis_url=f"redis://:hunter2@{HOST}:{server.port}") as client:
            assert await scored(client, *TASKS) == await right(*TASKS)
            for operation in ("read", "write"):
                sample = f'agentprm_score_cache_errors_total{{kind="auth",operation="{operation}"}}'
                await reached(client, sample, lambda n: n >= 1)
            assert (await errors(client)).keys() == {("read", "auth"), ("write", "auth")}
            assert "hunter2" not in (await client.get("/metrics")).text

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert "a probe failed: " in caplog.text
    assert "hunter2" not in caplog.text


def test_the_memory_of_the_process_serves_while_redis_is_gone(server: RedisServer) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, redis_url=server.url, score_cache_items=100) as client:
            await scored(client, *TASKS)
            server.kill()
            forwards = len(engine.calls)
            assert await scored(client, *TASKS) == await right(*TASKS)
            assert len(engine.calls) == forwards

    asyncio.run(scenario())
