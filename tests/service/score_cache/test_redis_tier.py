"""The Redis tier while Redis is well, and what it promises about waiting and closing."""

import asyncio
import math
import struct
from collections.abc import Callable

import pytest

from service.score_cache.keys import Key
from service.score_cache.redis_tier import WRITE_BATCH_SIZE
from service.score_cache.values import pack
from testbed.processes import PATIENCE
from testbed.redis import RedisServer
from tests.service.score_cache.caching import AMPLE, BRIEF, KEYS, SCORES, caching, tasks_of, until
from tests.service.score_cache.proxy import hanging, held, proxied

PROBE = b"test:probe"


def many(count: int) -> dict[Key, float]:
    return {f"test:{index}".encode(): index / 7 for index in range(count)}


def test_what_one_replica_stored_another_finds_bit_for_bit(server: RedisServer) -> None:
    async def scenario() -> None:
        scores = {b"a": 0.1 + 0.2, b"b": -0.0, b"c": 5e-324, b"d": 1.7976931348623157e308, b"e": 0.0, b"f": -3.976}
        async with caching(server.url) as first, caching(server.url) as second:
            first.put(scores)
            await first.stored()
            found = await second.get([*scores, b"unknown"])
            assert second.lookups == {"hit": 6, "miss": 1, "skipped": 0}
            assert first.writes == {"stored": 6, "dropped": 0}
            assert first.errors == second.errors == {}
        assert {key: struct.pack("<d", raw) for key, raw in found.items()} == {
            key: struct.pack("<d", raw) for key, raw in scores.items()
        }

    asyncio.run(scenario())


@pytest.mark.parametrize(("ttl", "least", "most"), [(600, 500, 600), (0, -1, -1)])
def test_redis_forgets_a_score_after_its_time_and_never_without_one(
    server: RedisServer, ttl: int, least: int, most: int
) -> None:
    async def scenario() -> None:
        async with caching(server.url, ttl=ttl) as cache:
            cache.put(SCORES)
            await cache.stored()
        assert all(least <= server.command("TTL", key) <= most for key in KEYS)

    asyncio.run(scenario())


def test_redis_holds_the_scores_and_a_probe_that_it_forgets_and_nothing_else(server: RedisServer) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            cache.put(SCORES)
            await cache.stored()
        assert set(server.command("KEYS", "*")) == {*KEYS, PROBE}
        assert server.command("MGET", *KEYS) == [pack(key, raw) for key, raw in SCORES.items()]
        assert server.command("TTL", PROBE) > 0

    asyncio.run(scenario())


def test_what_redis_knew_is_asked_for_once_and_in_one_command(server: RedisServer) -> None:
    async def scenario() -> None:
        scores = many(100)
        async with proxied(server.port) as proxy, caching(server.url) as writer, caching(proxy.url, items=100) as cache:
            writer.put(scores)
            await writer.stored()
            assert await cache.get(list(scores)) == scores
            assert await cache.get(list(scores)) == scores
            assert proxy.reads() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_stored(server: RedisServer, raw: float) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            cache.put({b"odd": raw, b"even": 2.0})
            await cache.stored()
            assert await cache.get([b"odd", b"even"]) == {b"even": 2.0}
        assert server.command("EXISTS", "odd") == 0

    asyncio.run(scenario())


def test_closing_writes_what_waits(server: RedisServer) -> None:
    async def scenario() -> None:
        scores = many(2 * WRITE_BATCH_SIZE + 1)
        async with caching(server.url) as cache:
            cache.put(scores)
            assert cache.unwritten == len(scores)
        assert cache.writes == {"stored": len(scores), "dropped": 0}
        async with caching(server.url) as second:
            assert await second.get(list(scores)) == scores

    asyncio.run(scenario())


def test_closing_does_not_wait_for_a_redis_that_hangs(server: RedisServer, brief_grace: Callable[[], None]) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            brief_grace()
            proxy.fault = hanging
            cache.put(SCORES)
            async with asyncio.timeout(PATIENCE):
                await cache.tiers.close()
            assert cache.writes == {"stored": 0, "dropped": len(SCORES)}
            assert cache.unwritten == 0

    asyncio.run(scenario())


def test_closing_ends_a_write_that_fails_when_it_is_cancelled(
    server: RedisServer, brief_grace: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        writing = asyncio.Event()

        async def fails(*_: object) -> None:
            writing.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise OSError("not a cancellation") from None

        async with caching(server.url) as cache:
            await cache.well()
            monkeypatch.setattr(cache.redis, "_write", fails)
            cache.put(SCORES)
            async with asyncio.timeout(PATIENCE):
                await writing.wait()
                brief_grace()
                await cache.tiers.close()
            assert not tasks_of("RedisTier._write_forever")

    asyncio.run(scenario())


def test_closing_leaves_no_task_and_no_connection(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy:
            before = asyncio.all_tasks()
            async with caching(proxy.url) as cache:
                cache.wait_no_longer_than(BRIEF)
                proxy.fault = hanging
                assert await cache.get(KEYS) == {}  # its read still goes on
                assert tasks_of("RedisServer.read")
            assert not tasks_of("RedisServer.read")
            await until(lambda: proxy.open == 0)
            assert asyncio.all_tasks() == before

    asyncio.run(scenario())


def test_a_caller_that_waits_while_the_cache_closes_is_told_that_nothing_is_known(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            proxy.fault = hanging
            waiting = asyncio.create_task(cache.get(KEYS))
            await until(lambda: proxy.reads() == 1)
            await cache.tiers.close()
            assert await waiting == {}
            assert await cache.get(KEYS) == {}
            assert cache.errors == {}
            await until(lambda: proxy.open == 0)
            assert proxy.reads() == 1
            assert not tasks_of("CircuitBreaker._recover")

    asyncio.run(scenario())


def test_a_read_that_is_late_keeps_its_connection(server: RedisServer) -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            cache.put(SCORES)
            await cache.stored()
            opened = proxy.opened
            cache.wait_no_longer_than(BRIEF)
            proxy.fault = held(release)
            assert await cache.get(KEYS) == {}
            cache.wait_no_longer_than(AMPLE)
            release.set()
            await until(lambda: not tasks_of("RedisServer.read"))
            proxy.heal()
            assert await cache.get(KEYS) == SCORES
            assert proxy.opened == opened

    asyncio.run(scenario())


def test_a_caller_that_leaves_takes_no_task_and_no_connection_along(server: RedisServer) -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            cache.put(SCORES)
            await cache.stored()
            opened = proxy.opened
            proxy.fault = held(release)
            for reads in (1, 2):
                caller = asyncio.create_task(cache.get(KEYS))
                await until(lambda reads=reads: proxy.reads() == reads)  # type: ignore[misc]
                caller.cancel()
                await asyncio.wait({caller})
                assert caller.cancelled()
            release.set()
            await until(lambda: not tasks_of("RedisServer.read"))
            assert await cache.get(KEYS) == SCORES
            assert proxy.opened <= opened + 1  # the second caller came while the first one's read went on
            assert cache.errors == {}
            await cache.heals()

    asyncio.run(scenario())


def test_a_caller_that_leaves_a_redis_that_hangs_leaves_no_connection_to_it(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url, step=BRIEF) as cache:
            open_before = proxy.open
            proxy.fault = hanging
            caller = asyncio.create_task(cache.get(KEYS))
            await until(lambda: proxy.reads() == 1)
            caller.cancel()
            await until(lambda: not tasks_of("RedisServer.read"))
            await until(lambda: proxy.open < open_before)
            proxy.heal()
            await cache.heals()

    asyncio.run(scenario())
