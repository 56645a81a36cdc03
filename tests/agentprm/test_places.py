"""A bounded number of calls of a client is under way; the others wait."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from agentprm import AsyncClient, Client, DeadlineExceeded, Step, Trajectory, UnexpectedReply
from agentprm.connections import MAX_CALLS
from tests.agentprm.echo_service import PATIENCE, echo_service, raw_score
from tests.agentprm.scripted import STEP, items_of, refusal, reply, with_ids

MANY = 3 * MAX_CALLS


def to_score(action: object) -> Trajectory:
    return Trajectory("t", (Step("", str(action)),))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with echo_service() as address:
        yield address


def answered(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=with_ids(reply(STEP), request))


class Gate:
    """A service that answers nobody until it is opened, and counts who waits for it at the same time."""

    def __init__(self) -> None:
        self._inside = 0
        self.most_inside = 0
        self.timeouts: list[dict[str, float | None]] = []

    def enter(self, request: httpx.Request) -> None:
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        self.timeouts.append(request.extensions["timeout"])

    def leave(self) -> None:
        self._inside -= 1


class AsyncGate(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.full = asyncio.Event()
        self.opened = asyncio.Event()
        self.transport = httpx.MockTransport(self._answer)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.enter(request)
        if self.most_inside == MAX_CALLS:
            self.full.set()
        try:
            await self.opened.wait()
        finally:
            self.leave()
        return answered(request)


class ThreadGate(Gate):
    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.full = threading.Event()
        self.opened = threading.Event()
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.enter(request)
        if self.most_inside == MAX_CALLS:
            self.full.set()
        assert self.opened.wait(PATIENCE)
        with self._lock:
            self.leave()
        return answered(request)


def test_of_many_tasks_as_many_call_as_there_are_places_and_all_succeed() -> None:
    async def scenario() -> None:
        gate = AsyncGate()
        async with AsyncClient("http://prm", transport=gate.transport, timeout=0.001) as client:
            calls = [asyncio.create_task(client.score(to_score(number))) for number in range(MANY)]
            await asyncio.wait_for(gate.full.wait(), PATIENCE)
            gate.opened.set()
            assert len(await asyncio.gather(*calls)) == MANY
        assert gate.most_inside == MAX_CALLS
        assert {(timeout["read"], timeout["pool"]) for timeout in gate.timeouts} == {(0.001, None)}

    asyncio.run(scenario())


def test_of_many_threads_as_many_call_as_there_are_places_and_all_succeed() -> None:
    gate = ThreadGate()
    with (
        Client("http://prm", transport=gate.transport, timeout=0.001) as client,
        ThreadPoolExecutor(2 * MAX_CALLS) as threads,
    ):
        calls = [threads.submit(client.score, to_score(number)) for number in range(2 * MAX_CALLS)]
        assert gate.full.wait(PATIENCE)
        gate.opened.set()
        assert len([call.result(PATIENCE) for call in calls]) == 2 * MAX_CALLS
    assert gate.most_inside == MAX_CALLS


def test_waiting_for_a_place_counts_against_the_deadline_and_asking_for_readiness_does_not_wait() -> None:
    async def scenario() -> None:
        gate = AsyncGate()
        async with AsyncClient("http://prm", transport=gate.transport) as client:
            calls = [asyncio.create_task(client.score(to_score(number))) for number in range(MAX_CALLS)]
            await asyncio.wait_for(gate.full.wait(), PATIENCE)
            with pytest.raises(DeadlineExceeded, match=f"while {MAX_CALLS} other calls"):
                await client.score(to_score("late"), deadline_ms=1)
            asking = asyncio.create_task(client.ready())
            late = asyncio.create_task(client.score(to_score("no deadline")))
            gate.opened.set()
            await asyncio.gather(late, *calls)
            with pytest.raises(UnexpectedReply):
                await asking  # this service answers it with scores
        assert gate.most_inside == MAX_CALLS + 1

    asyncio.run(scenario())


def test_threads_that_wait_for_a_place_see_their_deadline() -> None:
    gate = ThreadGate()
    with Client("http://prm", transport=gate.transport) as client, ThreadPoolExecutor(MAX_CALLS) as threads:
        calls = [threads.submit(client.score, to_score(number)) for number in range(MAX_CALLS)]
        assert gate.full.wait(PATIENCE)
        with pytest.raises(DeadlineExceeded, match=f"while {MAX_CALLS} other calls"):
            client.score(to_score("late"), deadline_ms=1)
        gate.opened.set()
        assert all(call.result(PATIENCE) for call in calls)


def test_a_call_that_was_refused_keeps_its_place_while_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all waiting calls would be sent to a service that is overloaded, and use up their attempts."""
    monkeypatch.setattr("agentprm.connections.MAX_CALLS", 1)
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        action = items_of(request)[0]["steps"][0]["action"]
        sent.append(action)
        return refusal(429, "overloaded", "1") if len(sent) == 1 else answered(request)

    async def scenario() -> None:
        transport = httpx.MockTransport(answer)
        async with AsyncClient("http://prm", transport=transport, sleep=lambda _: asyncio.sleep(0)) as client:
            await asyncio.gather(client.score(to_score("first")), client.score(to_score("second")))

    asyncio.run(scenario())
    assert sent == ["first", "first", "second"]


def test_cancelled_calls_give_their_places_back(url: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(url) as client, AsyncClient(url) as other:
            for name in ("one", "two"):
                calls = [asyncio.create_task(client.score(to_score(f"hold {name}"))) for _ in range(MAX_CALLS + 20)]
                await other.score(to_score(f"await held {name}"))
                for call in calls:
                    call.cancel()
                assert all(isinstance(end, asyncio.CancelledError) for end in await finished(calls))
                await other.score(to_score(f"release {name}"))
            numbers = range(MANY)
            results = await asyncio.gather(*(client.score(to_score(number)) for number in numbers))
            assert [result.raw for result in results] == [raw_score(str(number)) for number in numbers]

    async def finished(calls: list[Any]) -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)

    asyncio.run(scenario())
