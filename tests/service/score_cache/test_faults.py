"""Faulty replies of Redis: callers get right scores or none, the metrics count the fault, and the cache recovers."""

import asyncio
from collections.abc import Callable

import pytest

from service.redis_client.breaker import FAILURES, State
from testbed.processes import PATIENCE
from testbed.redis import RedisServer
from tests.service.score_cache.caching import (
    AMPLE,
    BRIEF,
    KEYS,
    NAMESPACE,
    SCORES,
    caching,
    stored,
    until,
    warned,
    warnings,
)
from tests.service.score_cache.proxy import (
    HTTP,
    Fault,
    answering,
    cutting,
    cutting_halfway,
    hanging,
    proxied,
    slow,
)

READING = {
    "hangs": (hanging, "timeout"),
    "is slow": (slow(2 * BRIEF), "timeout"),
    "cuts the connection": (cutting, "connection"),
    "cuts the connection within a reply": (cutting_halfway, "connection"),
    "is a web server": (answering(HTTP), "protocol"),
    "answers with too few values": (answering(b"*2\r\n" + 2 * b"$-1\r\n"), "protocol"),
    "answers with too many values": (answering(b"*4\r\n" + 4 * b"$-1\r\n"), "protocol"),
    "answers with a number": (answering(b":3\r\n"), "protocol"),
    "answers with a text as long as the keys are many": (answering(b"$3\r\nabc\r\n"), "protocol"),
    "answers with nothing": (answering(b"*-1\r\n"), "protocol"),
    "still loads": (answering(b"-LOADING Redis is loading the dataset in memory\r\n"), "loading"),
    "wants a password": (answering(b"-NOAUTH Authentication required.\r\n"), "auth"),
    "has an error of its own": (answering(b"-MISCONF the disk is full\r\n"), "other"),
}
WRITING = {
    "hangs": (hanging, "timeout"),
    "cuts the connection": (cutting, "connection"),
    "is a web server": (answering(HTTP), "protocol"),
    "is full": (answering(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"), "oom"),
    "is a replica": (answering(b"-READONLY You can't write against a read only replica.\r\n"), "readonly"),
    "has an error of its own": (answering(b"-MISCONF the disk is full\r\n"), "other"),
}


def budget_for(kind: str) -> float:
    """Seconds that a caller waits for a Redis that fails so: briefly only where the failure is that no answer comes."""
    return BRIEF if kind == "timeout" else AMPLE


reading = pytest.mark.parametrize(("fault", "kind"), READING.values(), ids=READING)
writing = pytest.mark.parametrize(("fault", "kind"), WRITING.values(), ids=WRITING)


@reading
def test_a_redis_that_fails_is_asked_three_times_and_then_left_alone(
    server: RedisServer, caplog: pytest.LogCaptureFixture, fault: Fault, kind: str
) -> None:
    async def scenario() -> None:
        # No probe comes before the end of the test, so whatever reaches the proxy comes from a caller.
        async with (
            proxied(server.port) as proxy,
            caching(proxy.url, pause=PATIENCE, step=2 * PATIENCE) as cache,
        ):
            await stored(cache)
            asked = proxy.reads()
            cache.wait_no_longer_than(budget_for(kind))
            proxy.fault = fault
            assert [await cache.get(KEYS) for _ in range(FAILURES + 4)] == [{}] * (FAILURES + 4)
            assert proxy.reads() == asked + FAILURES
            assert cache.errors == {("read", kind): FAILURES}
            assert cache.lookups == {"hit": 0, "miss": FAILURES * len(KEYS), "skipped": 4 * len(KEYS)}
            assert cache.breakers == {"read": State.OPEN, "write": State.CLOSED}
        assert warned(caplog, f"a read of the score cache failed ({kind}): ") == 1
        assert warned(caplog, "reading scores from Redis: given up") == 1
        assert len(warnings(caplog)) == 2

    asyncio.run(scenario())


@reading
def test_it_is_read_again_by_itself_when_it_is_well(server: RedisServer, fault: Fault, kind: str) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url, step=8 * budget_for(kind)) as cache:
            await stored(cache)
            cache.wait_no_longer_than(budget_for(kind))
            proxy.fault = fault
            for _ in range(FAILURES):
                assert await cache.get(KEYS) == {}
            await until(lambda: cache.errors.get(("read", kind), 0) > FAILURES)  # a probe failed, too
            cache.wait_no_longer_than(AMPLE)
            proxy.heal()
            await cache.heals()
            assert await cache.get(KEYS) == SCORES

    asyncio.run(scenario())


@writing
def test_what_cannot_be_written_waits_while_reading_goes_on_and_is_written_later(
    server: RedisServer, caplog: pytest.LogCaptureFixture, brief_grace: Callable[[], None], fault: Fault, kind: str
) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await stored(cache)
            if kind == "timeout":
                brief_grace()
            proxy.fault, proxy.to = fault, frozenset((b"SET",))
            more = {b"test:more": 4.0, b"test:yet": 5.0}
            cache.put(more)
            await until(lambda: cache.errors.get(("write", kind), 0) >= 2)  # the write and a probe
            assert cache.breakers["write"] != State.CLOSED
            assert cache.unwritten == len(more)
            assert await cache.get(KEYS) == SCORES
            assert cache.breakers["read"] == State.CLOSED
            server.command("DEL", *more)  # the proxy spoilt the replies only
            proxy.heal()
            await cache.stored()
            assert await cache.get([*KEYS, *more]) == SCORES | more
            assert {operation for operation, _ in cache.errors} == {"write"}
            assert cache.writes == {"stored": len(SCORES | more), "dropped": 0}
        assert warned(caplog, f"a write of the score cache failed ({kind}): ") == 1

    asyncio.run(scenario())


def test_one_that_cannot_be_written_is_tried_once_and_then_left_to_the_probe(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url, pause=PATIENCE) as cache:
            await stored(cache)
            proxy.fault, proxy.to = cutting, frozenset((b"SET",))
            cache.put({b"test:more": 4.0})
            await until(lambda: cache.errors)
            for _ in range(20):  # a writer that did not wait would write meanwhile
                assert await cache.get(KEYS) == SCORES
                cache.put({b"test:yet": 5.0})
            assert cache.errors == {("write", "connection"): 1}
            assert cache.unwritten == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"-MISCONF it cannot save\r\n", "the server answers MISCONF"),
        (b"-ERR unknown command, with args beginning with: 'test:1'\r\n", "the server answers with an error"),
        (b"-OOM command not allowed\r\n", "(oom): command not allowed"),
        (b"What is test:1?\r\n", "(protocol): what answers does not speak Redis"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "(other): Hash slot not served"),
    ],
)
@pytest.mark.parametrize("command", [b"MGET", b"SET"])
def test_an_error_is_told_without_what_was_asked(
    server: RedisServer, caplog: pytest.LogCaptureFixture, reply: bytes, words: str, command: bytes
) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            proxy.fault, proxy.to = answering(reply), frozenset((command,))
            await cache.get(KEYS)
            cache.put(SCORES)
            await until(lambda: cache.errors)

    asyncio.run(scenario())
    assert words in caplog.text
    assert "test:1" not in caplog.text


def test_a_probe_is_made_in_the_background_and_not_by_a_caller(server: RedisServer) -> None:
    async def scenario() -> None:
        probe = f"{NAMESPACE}:probe".encode()
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await stored(cache)
            proxy.fault = cutting
            for _ in range(FAILURES):
                await cache.get(KEYS)
            proxy.fault, seen = hanging, len(proxy.commands)
            await until(lambda: (b"MGET", probe) in proxy.commands[seen:])
            assert cache.breakers["read"] == State.HALF_OPEN
            asked = proxy.reads()
            async with asyncio.timeout(PATIENCE):
                for _ in range(20):
                    assert await cache.get(KEYS) == {}
            assert cache.lookups["skipped"] == 20 * len(KEYS)
            assert proxy.reads() == asked

    asyncio.run(scenario())


def test_a_probe_that_is_answered_later_than_a_caller_waits_is_not_well(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            cache.wait_no_longer_than(BRIEF)
            proxy.fault = slow(2 * BRIEF)
            for _ in range(FAILURES):
                assert await cache.get(KEYS) == {}
            await until(lambda: cache.errors.get(("read", "timeout"), 0) > FAILURES)
            assert cache.errors.keys() == {("read", "timeout")}
            assert cache.breakers["read"] != State.CLOSED
            cache.wait_no_longer_than(AMPLE)
            proxy.heal()
            await cache.well()

    asyncio.run(scenario())


def test_callers_at_once_wait_for_a_redis_that_hangs_side_by_side_and_are_then_spared(server: RedisServer) -> None:
    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url, pause=PATIENCE) as cache:
            await cache.well()
            cache.wait_no_longer_than(BRIEF)
            proxy.fault = hanging
            assert await asyncio.gather(*(cache.get(KEYS) for _ in range(10))) == [{}] * 10
            await until(lambda: proxy.reads() == 10)
            assert cache.errors == {("read", "timeout"): 10}
            assert await asyncio.gather(*(cache.get(KEYS) for _ in range(10))) == [{}] * 10
            assert proxy.reads() == 10

    asyncio.run(scenario())


def test_more_callers_than_connections_do_without_redis(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.score_cache.redis_tier.MAX_READS", 4)

    async def scenario() -> None:
        async with proxied(server.port) as proxy, caching(proxy.url) as cache:
            await cache.well()
            cache.wait_no_longer_than(BRIEF)
            proxy.fault = hanging
            assert await asyncio.gather(*(cache.get([b"a"]) for _ in range(10))) == [{}] * 10
            assert cache.lookups == {"hit": 0, "miss": 4, "skipped": 6}

    asyncio.run(scenario())
