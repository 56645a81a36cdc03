"""Rate limits of API keys, in one process and shared by several."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from service.access import rate_limits as module
from service.access.rate_limits import LocalRateLimiter, Rate, RedisRateLimiter, parse_rate
from service.redis_client.connections import connect
from testbed.processes import PATIENCE
from testbed.redis import RedisServer, find_valkey, running

HOURLY = Rate(3, 3600.0)
"""So slow that no token comes back while a test runs."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running(RedisServer(str(find_valkey()), tmp_path_factory.mktemp("redis"), "--save", "")) as server:
        yield server


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def shared(server: RedisServer, budget: float = PATIENCE) -> AsyncIterator[RedisRateLimiter]:
    connection = connect(server.url, timeout=PATIENCE)
    limiter = RedisRateLimiter(connection, "test", budget=budget)
    await limiter.start()
    yield limiter
    await limiter.close()


@pytest.mark.parametrize(("text", "rate"), [("20/s", Rate(20, 1)), ("600/min", Rate(600, 60)), ("5/h", Rate(5, 3600))])
def test_a_rate_is_a_number_of_requests_in_a_period(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "20", "0/s", "-1/s", "1.5/s", "20/d", "20/s ", "1e3/s", "٣/s", "1000000/s"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="as in 600/min"):
        parse_rate(text)


def test_a_bucket_gives_all_it_holds_at_once_and_then_as_tokens_come_back() -> None:
    async def scenario() -> None:
        clock = Clock()
        limiter, rate = LocalRateLimiter(clock), Rate(3, 60.0)
        assert [await limiter.take("a", rate) for _ in range(3)] == [0.0, 0.0, 0.0]
        assert await limiter.take("a", rate) == pytest.approx(20.0)
        assert await limiter.take("b", rate) == 0.0, "a bucket of its own"
        clock.now += 20.0
        assert await limiter.take("a", rate) == 0.0
        assert await limiter.take("a", rate) == pytest.approx(20.0), "what was refused took nothing"

    asyncio.run(scenario())


@given(st.lists(st.floats(0.0, 3.0), max_size=60))
def test_in_no_period_more_than_twice_the_bucket_is_let_in(pauses: list[float]) -> None:
    """A period can see a full bucket and the tokens that come back while it is emptied."""

    async def scenario() -> None:
        clock, rate = Clock(), Rate(5, 10.0)
        limiter = LocalRateLimiter(clock)
        let_in: list[float] = []
        for pause in pauses:
            clock.now += pause
            if not await limiter.take("a", rate):
                let_in.append(clock.now)
        for start in let_in:
            assert sum(start <= moment < start + rate.seconds for moment in let_in) <= 2 * rate.requests

    asyncio.run(scenario())


def test_replicas_share_a_bucket_in_redis(redis: RedisServer) -> None:
    async def scenario() -> None:
        async with shared(redis) as first, shared(redis) as second:
            waits = [await limiter.take("shared", HOURLY) for limiter in (first, second, first, second, first)]
        assert waits[:3] == [0.0, 0.0, 0.0]
        assert all(1100 < wait <= 1200 for wait in waits[3:]), "a third of an hour, less what the test took"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["local", "shared"])
def test_a_key_whose_rate_was_raised_waits_no_longer_than_the_new_one_makes_it(kind: str, redis: RedisServer) -> None:
    slow, quick = Rate(2, 3600.0), Rate(2, 60.0)

    async def waits(limiter: LocalRateLimiter | RedisRateLimiter) -> list[float]:
        return [await limiter.take("raised", rate) for rate in (slow, slow, quick)]

    async def scenario() -> None:
        if kind == "local":
            found = await waits(LocalRateLimiter())
        else:
            async with shared(redis) as limiter:
                found = await waits(limiter)
        assert found[:2] == [0.0, 0.0]
        assert 0 < found[2] <= 30.0

    asyncio.run(scenario())


def test_a_crowd_waits_for_connections_and_is_counted_together(redis: RedisServer) -> None:
    rate = Rate(50, 3600.0)

    async def scenario() -> None:
        async with shared(redis) as first, shared(redis) as second:
            found = await asyncio.gather(
                *(limiter.take("crowd", rate) for limiter in (first, second) for _ in range(200))
            )
        assert found.count(0.0) == 50

    asyncio.run(scenario())


def test_a_full_bucket_is_not_kept(redis: RedisServer) -> None:
    async def scenario() -> None:
        async with shared(redis) as limiter:
            await limiter.take("brief", Rate(1, 1.0))
        assert 0 < redis.command("PTTL", "test-rates:brief") <= 1000

    asyncio.run(scenario())


def test_without_redis_every_replica_counts_for_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        with running(RedisServer(str(find_valkey()), tmp_path, "--save", "")) as server:
            async with shared(server, budget=1.0) as first, shared(server, budget=1.0) as second:
                server.kill()
                for limiter in (first, second):
                    waits = [await limiter.take("alone", HOURLY) for _ in range(4)]
                    assert waits[:3] == [0.0, 0.0, 0.0]
                    assert waits[3] > 0

    asyncio.run(scenario())


def test_what_a_server_says_of_a_password_is_not_logged(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def repeats(*_: object, **__: object) -> float:
        raise ResponseError("unknown command 'AUTH', with args beginning with: 'secret'")

    async def scenario() -> None:
        connection = connect(redis.url, timeout=PATIENCE)
        monkeypatch.setattr(connection, "take_token", repeats)
        limiter = RedisRateLimiter(connection, "test", budget=PATIENCE)
        monkeypatch.setattr(module, "_CONNECT_SECONDS", 0.05)
        await limiter.start()
        await limiter.close()

    asyncio.run(scenario())
    assert "rate limits in Redis: a probe failed: the server answers with an error" in caplog.text
    assert "secret" not in caplog.text
