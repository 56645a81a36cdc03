"""Redis answers with a value that is no score of that key: it is a miss, and the next write repairs it."""

import asyncio

import pytest

from service.redis_client.breaker import State
from testbed.redis import RedisServer
from tests.service.score_cache.caching import KEYS, SCORES, caching, stored, warned
from tests.service.score_cache.proxy import Fault, altering, proxied, swapping


@pytest.mark.parametrize("lie", [swapping, altering])
def test_the_value_of_another_key_and_a_changed_one_are_not_believed(
    server: RedisServer, caplog: pytest.LogCaptureFixture, lie: Fault
) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await stored(cache)
            proxy.fault = lie
            assert await cache.get(KEYS[:2]) == {}
            assert cache.errors == {("read", "value"): 2}
            assert cache.lookups == {"hit": 0, "miss": 2, "skipped": 0}
            assert cache.breakers["read"] == State.CLOSED
            proxy.heal()
            assert await cache.get(KEYS) == SCORES
        assert warned(caplog, "a read of the score cache failed (value): ") == 1

    asyncio.run(scenario())


def test_a_score_of_another_program_is_not_believed_and_is_overwritten(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            await stored(cache)
            server.command("SET", KEYS[0], "0.5")
            assert await cache.get(KEYS) == {key: SCORES[key] for key in KEYS[1:]}
            assert cache.errors == {("read", "value"): 1}
            cache.put({KEYS[0]: SCORES[KEYS[0]]})
            await cache.stored()
            assert await cache.get(KEYS) == SCORES
        assert warned(caplog, "a read of the score cache failed (value): ") == 1
        assert "0.5" not in caplog.text

    asyncio.run(scenario())


def test_a_list_under_a_key_is_no_score_and_is_overwritten(server: RedisServer) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            server.command("RPUSH", KEYS[0], "a", "b")
            assert await cache.get(KEYS) == {}
            await stored(cache)
            assert await cache.get(KEYS) == SCORES
            assert cache.errors == {}

    asyncio.run(scenario())
