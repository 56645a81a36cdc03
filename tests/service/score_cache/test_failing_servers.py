"""Redis itself fails: it is down, dies, hangs, is full, is a replica, or refuses every client."""

import asyncio
import logging

import pytest

from service.redis_client.breaker import FAILURES, State
from testbed.processes import HOST
from testbed.redis import RedisServer, Start
from tests.service.score_cache.caching import AMPLE, BRIEF, KEYS, SCORES, caching, until
from tests.service.score_cache.proxy import hanging, proxied

MORE = {b"test:more": 4.0, b"test:yet": 5.0}
PASSWORD = "hunter2-and-more"


def test_one_that_is_down_at_the_start_keeps_nothing_down_and_is_used_once_it_is_there(
    server: RedisServer, caplog: pytest.LogCaptureFixture, brief_start: None
) -> None:
    async def scenario() -> None:
        server.kill()
        async with caching(server.url) as cache:
            assert cache.breakers["read"] != State.CLOSED
            assert await cache.get(KEYS) == {}
            assert cache.lookups == {"hit": 0, "miss": 0, "skipped": len(KEYS)}
            cache.put(SCORES)
            await until(lambda: len(cache.errors) == 2)
            assert cache.errors.keys() == {("read", "connection"), ("write", "connection")}
            server.start()
            await cache.stored()
            await cache.well()
            assert await cache.get(KEYS) == SCORES

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    for operation in ("reading scores from", "writing scores to"):
        assert caplog.text.count(f"{operation} Redis: a probe failed: Error 111 connecting to") == 1
        assert caplog.text.count(f"{operation} Redis: well again after") == 1


def test_one_that_dies_while_a_caller_waits_costs_a_miss_and_is_used_again_when_it_is_back(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            server.hang()
            waiting = asyncio.create_task(cache.get(KEYS))
            await until(lambda: proxy.reads() == 1)
            server.kill()
            assert await waiting == {}
            assert cache.errors == {("read", "connection"): 1}
            server.start()
            await cache.heals()

    asyncio.run(scenario())


def test_one_that_was_killed_and_is_back_is_used_again_though_every_connection_is_dead(server: RedisServer) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            for _ in range(3):
                await asyncio.gather(*(cache.get(KEYS) for _ in range(8)))
                server.kill()
                assert await cache.get(KEYS) == {}
                cache.put(SCORES)
                await until(lambda: cache.breakers["write"] != State.CLOSED)
                server.start()
                await cache.stored()
                await cache.well()
                assert await cache.get(KEYS) == SCORES
            assert {kind for _, kind in cache.errors} == {"connection"}

    asyncio.run(scenario())


def test_one_that_is_stopped_costs_three_callers_the_budget_and_is_used_again_when_it_goes_on(
    server: RedisServer,
) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.stored()
            cache.wait_no_longer_than(BRIEF)
            server.hang()
            for _ in range(FAILURES + 3):
                assert await cache.get(KEYS) == {}
            assert cache.errors[("read", "timeout")] >= FAILURES
            assert cache.lookups["skipped"] == 3 * len(KEYS)
            cache.wait_no_longer_than(AMPLE)
            server.resume()
            await cache.heals()
            assert await cache.get(KEYS) == SCORES

    asyncio.run(scenario())


def test_one_that_is_full_is_read_and_written_again_once_it_has_room(server: RedisServer) -> None:
    async def scenario() -> None:
        async with caching(server.url) as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.stored()
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb")
            server.command("CONFIG", "SET", "maxmemory", "1")
            cache.put(MORE)
            await until(lambda: cache.errors.get(("write", "oom"), 0) >= 2)
            assert cache.unwritten == len(MORE)
            assert await cache.get([*KEYS, *MORE]) == SCORES
            assert cache.errors.keys() == {("write", "oom")}
            server.command("CONFIG", "SET", "maxmemory", "0")
            await cache.stored()
            assert await cache.get([*KEYS, *MORE]) == SCORES | MORE

    asyncio.run(scenario())


def test_a_replica_is_read_and_its_promotion_lets_what_waits_in(start: Start, brief_start: None) -> None:
    async def scenario() -> None:
        primary = start("--repl-diskless-sync-delay", "0")
        replica = start("--replicaof", f"{HOST} {primary.port}")
        async with caching(primary.url) as writer:
            await writer.well()
            writer.put(SCORES)
            await writer.stored()
        await until(lambda: replica.command("EXISTS", *KEYS) == len(KEYS))
        async with caching(replica.url) as cache:
            await until(lambda: cache.breakers["read"] == State.CLOSED)
            cache.put(MORE)
            assert await cache.get([*KEYS, *MORE]) == SCORES
            await until(lambda: cache.errors)
            assert cache.errors.keys() == {("write", "readonly")}
            assert cache.unwritten == len(MORE)
            replica.command("REPLICAOF", "NO", "ONE")
            await cache.stored()
            assert await cache.get([*KEYS, *MORE]) == SCORES | MORE

    asyncio.run(scenario())


def test_a_wrong_password_is_told_without_it_and_the_right_one_heals(
    start: Start, caplog: pytest.LogCaptureFixture, brief_start: None
) -> None:
    async def scenario() -> None:
        server = start("--requirepass", "another", password="another")
        async with caching(f"redis://:{PASSWORD}@{HOST}:{server.port}") as cache:
            cache.put(SCORES)
            assert await cache.get(KEYS) == {}
            await until(lambda: len(cache.errors) == 2)
            assert cache.errors.keys() == {("read", "auth"), ("write", "auth")}
            server.command("CONFIG", "SET", "requirepass", PASSWORD)
            await cache.stored()
            await cache.well()
            assert await cache.get(KEYS) == SCORES

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert "a probe failed: invalid username-password pair" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_server_that_repeats_the_password_in_its_error_is_not_quoted(
    start: Start, caplog: pytest.LogCaptureFixture, brief_start: None
) -> None:
    async def scenario() -> None:
        server = start("--rename-command", "AUTH", "")
        async with caching(f"redis://:{PASSWORD}@{HOST}:{server.port}") as cache:
            assert await cache.get(KEYS) == {}
            await until(lambda: len(cache.errors) == 2)
            assert cache.errors.keys() == {("read", "other"), ("write", "other")}

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert "a probe failed: the server answers with an error" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_user_who_may_not_write_reads_and_writes_once_that_is_allowed(server: RedisServer, brief_start: None) -> None:
    async def scenario() -> None:
        server.command("ACL", "SETUSER", "scorer", "on", f">{PASSWORD}", "~test:*", "+mget")
        async with caching(server.url) as owner:
            await owner.well()
            owner.put(SCORES)
            await owner.stored()
        async with caching(f"redis://scorer:{PASSWORD}@{HOST}:{server.port}") as cache:
            await until(lambda: cache.breakers["read"] == State.CLOSED)
            cache.put(MORE)
            assert await cache.get([*KEYS, *MORE]) == SCORES
            await until(lambda: cache.errors)
            assert cache.errors.keys() == {("write", "auth")}
            server.command("ACL", "SETUSER", "scorer", "+set")
            await cache.stored()
            assert await cache.get([*KEYS, *MORE]) == SCORES | MORE

    asyncio.run(scenario())


def test_no_more_than_a_number_of_scores_waits_to_be_written_and_the_oldest_are_dropped(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.score_cache.redis_tier.MAX_UNWRITTEN", 5)

    async def scenario() -> None:
        scores = {f"test:{index}".encode(): float(index) for index in range(9)}
        keys = list(scores)
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            proxy.fault, proxy.to = hanging, frozenset((b"SET",))
            cache.put({key: scores[key] for key in keys[:4]})
            cache.put({key: scores[key] for key in keys[4:7]})
            assert cache.unwritten == 5
            cache.put({key: scores[key] for key in keys[7:]})
            assert cache.unwritten == 5
            assert cache.writes == {"stored": 0, "dropped": 4}
            proxy.heal()
            await proxy.cut()
            await cache.stored()
            assert await cache.get(keys[4:]) == {key: scores[key] for key in keys[4:]}
            assert cache.writes["dropped"] == 4

    asyncio.run(scenario())


def test_more_at_once_than_may_wait_keeps_the_newest(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.score_cache.redis_tier.MAX_UNWRITTEN", 2)

    async def scenario() -> None:
        async with caching(server.url) as cache:
            cache.put(SCORES)
            assert cache.unwritten == 2
            await cache.stored()
            assert await cache.get(KEYS) == {key: SCORES[key] for key in KEYS[1:]}
            assert cache.writes == {"stored": 2, "dropped": 1}

    asyncio.run(scenario())
