"""Whose event loop the connections of a client belong to, and what is left of them after close."""

import asyncio
import gc
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from agentprm import AsyncClient, Client, ClientClosed, Step, Trajectory, UnexpectedReply
from tests.agentprm.echo_service import PATIENCE, echo_service, raw_score
from tests.agentprm.scripted import ScriptedService


def to_score(action: object) -> Trajectory:
    return Trajectory("t", (Step("", str(action)),))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with echo_service() as address:
        yield address


def test_a_connection_that_gave_a_reply_to_another_request_is_not_used_again(url: str) -> None:
    with Client(url) as client:
        before = client.score(to_score("x")).progress
        with pytest.raises(UnexpectedReply, match="other ids"):
            client.score(to_score("swap"))
        assert client.score(to_score("x")).progress != before


def test_one_client_serves_one_event_loop_after_another(url: str) -> None:
    """The first loop closes its connections itself, so nothing is left that would warn of being open."""

    async def calls(client: AsyncClient) -> set[float | None]:
        results = await asyncio.gather(*(client.score(to_score(number)) for number in range(5)))
        return {result.progress for result in results}

    def in_two_loops() -> None:
        client = AsyncClient(url)
        first, second = asyncio.run(calls(client)), asyncio.run(calls(client))
        assert first.isdisjoint(second)

    in_two_loops()
    gc.collect()


def test_one_client_serves_event_loops_of_several_threads_at_once(url: str) -> None:
    client = AsyncClient(url)

    def in_loop(_: int) -> Any:
        return asyncio.run(calls())

    async def calls() -> list[Any]:
        return await asyncio.gather(*(client.score(to_score("hold 40")) for _ in range(10)))

    with ThreadPoolExecutor(4) as threads:
        results = [result for of_loop in threads.map(in_loop, range(4)) for result in of_loop]
    assert len({result.progress for result in results}) == 40


def test_a_client_that_nobody_closed_leaves_nothing_open(url: str) -> None:
    async def scenario() -> None:
        client = AsyncClient(url)
        mine = (await client.score(to_score("x"))).progress
        del client
        gc.collect()
        async with AsyncClient(url) as other:
            assert mine is not None
            await other.score(to_score(f"await close {mine:.0f}"))

    asyncio.run(scenario())


def test_an_asynchronous_transport_of_another_loop_is_refused_and_a_function_makes_one_for_each(url: str) -> None:
    transport = httpx.AsyncHTTPTransport()
    bound = AsyncClient(url, transport=transport)
    free = AsyncClient(url, transport=httpx.AsyncHTTPTransport)

    async def use_both() -> None:
        assert (await free.score(to_score("x"))).raw == (await bound.score(to_score("x"))).raw == raw_score("x")
        await transport.aclose()  # its connections end with their loop

    async def use_both_again() -> None:
        assert (await free.score(to_score("x"))).raw == raw_score("x")
        with pytest.raises(ClientClosed, match="belongs to the event loop that first used it"):
            await bound.score(to_score("x"))

    asyncio.run(use_both())
    asyncio.run(use_both_again())


@pytest.mark.parametrize("method", ["score", "rank", "models", "ready"])
def test_a_closed_client_says_so_and_can_be_closed_again(service: ScriptedService, method: str) -> None:
    chat = [{"role": "user", "content": "t"}]
    arguments: tuple[Any, ...] = {"score": (to_score("x"),), "rank": (chat, ["x"])}.get(method, ())
    with pytest.raises(ClientClosed, match="the client is closed"):
        service.call_closed(method, *arguments)
    assert service.requests == []


def test_calls_under_way_are_answered_although_the_client_is_closed(url: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(url) as client, AsyncClient(url) as other:
            call = asyncio.create_task(client.score(to_score("hold closing")))
            await other.score(to_score("await held closing"))
            await client.close()
            with pytest.raises(ClientClosed):
                await client.score(to_score("x"))
            await other.score(to_score("release closing"))
            port = (await call).progress
            assert port is not None
            await other.score(to_score(f"await close {port:.0f}"))

    asyncio.run(scenario())
    with Client(url) as client, Client(url) as other, ThreadPoolExecutor(1) as threads:
        held = threads.submit(client.score, to_score("hold thread"))
        other.score(to_score("await held thread"))
        client.close()
        other.score(to_score("release thread"))
        assert held.result(PATIENCE).raw == raw_score("hold thread")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_says_that_it_cannot_be_pickled(kind: Callable[[str], Any]) -> None:
    with pytest.raises(TypeError, match="a client cannot be pickled: make one in each process"):
        pickle.dumps(kind("http://prm"))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": None}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"max_retries": -1}, "max_retries must be"),
        ({"max_retries": None}, "max_retries must be"),
    ],
)
def test_limits_that_make_no_sense_are_refused(kind: Callable[..., Any], options: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        kind("http://prm", **options)
