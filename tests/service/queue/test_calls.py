"""Calls run a limited number at once, in fair turns, equal ones once, and only while a request waits for them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agentprm.errors import InternalError, NotReady, Overloaded, TooLong, UpstreamFailed
from service.queue.calls import Answers, CallQueue
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from tests.service.echo_app import PATIENCE

Running = dict[str, asyncio.Future[str]]
Scenario = Callable[[CallQueue[str, str, str], "Gated"], Awaitable[None]]
INTERACTIVE, BULK = Terms(), Terms(priority=Priority.BULK)


class Gated:
    """Calls that end when a test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running: Running = {}
        self.cancelled: list[str] = []

    async def call(self, work: str) -> str:
        self.asked.append(work)
        self.running[work] = asyncio.get_running_loop().create_future()
        try:
            return await self.running[work]
        except asyncio.CancelledError:
            self.cancelled.append(work)
            raise
        finally:
            del self.running[work]

    async def end(self, *works: str, error: Exception | None = None) -> None:
        for work in works:
            if error is None:
                self.running[work].set_result(work.upper())
            else:
                self.running[work].set_exception(error)
        await settled()


async def settled() -> None:
    """Lets the event loop do everything that is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Scenario, max_concurrent: int = 2, max_waiting: int = 100) -> None:
    async def inside() -> None:
        gated = Gated()
        calls = CallQueue[str, str, str](gated.call, max_concurrent=max_concurrent, max_waiting=max_waiting)
        calls.open()
        async with asyncio.timeout(PATIENCE):
            await scenario(calls, gated)
            await calls.close()
        assert not gated.running

    asyncio.run(inside())


async def submitted(
    calls: CallQueue[str, str, str], works: str, terms: Terms = INTERACTIVE
) -> asyncio.Task[Answers[str, str]]:
    """Submits one call per letter, and returns the request once it has got as far as it can."""
    task = asyncio.create_task(calls.submit({work: work for work in works}, terms))
    await settled()
    return task


def test_no_more_run_at_once_than_may_and_all_are_answered() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        request = await submitted(calls, "abcd")
        assert (list(gated.running), calls.waiting) == (["a", "b"], 2)
        await gated.end("b")
        assert list(gated.running) == ["a", "c"]
        await gated.end("a", "c")
        await gated.end("d")
        answer = await request
        assert answer.results == {work: work.upper() for work in "abcd"}
        assert answer.shared == set()
        assert answer.queue >= 0 < answer.forward

    run(scenario)


def test_equal_work_is_called_once_whether_it_runs_or_waits() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        requests = [await submitted(calls, "ab"), await submitted(calls, "ab"), await submitted(calls, "b")]
        await gated.end("a")
        await gated.end("b")
        first, second, third = await asyncio.gather(*requests)
        assert gated.asked == ["a", "b"]
        assert (first.shared, second.shared, third.shared) == (set(), {"a", "b"}, {"b"})
        assert third.results == {"b": "B"}

    run(scenario, max_concurrent=1)


def test_what_was_answered_while_it_waited_is_not_called_when_its_turn_comes() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        requests = [await submitted(calls, "ab"), await submitted(calls, "ac")]
        while gated.running:
            await gated.end(*gated.running)
        assert [answers.results.keys() for answers in await asyncio.gather(*requests)] == [{"a", "b"}, {"a", "c"}]
        assert gated.asked == ["a", "b", "c"]

    run(scenario, max_concurrent=1)


def test_who_leaves_takes_along_only_what_nobody_else_waits_for() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        leaves = await submitted(calls, "abc")
        stays = await submitted(calls, "b")
        leaves.cancel()
        await settled()
        assert (gated.cancelled, list(gated.running), calls.waiting) == (["a"], ["b"], 0)
        again = await submitted(calls, "a")
        await gated.end("a", "b")
        assert (await stays).results == {"b": "B"}
        assert (await again).results == {"a": "A"}
        assert "c" not in gated.asked

    run(scenario)


def test_a_place_is_free_again_when_its_call_is_cancelled() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        leaves, stays, leaves_too = [await submitted(calls, work) for work in "abc"]
        assert (list(gated.running), calls.waiting) == (["a"], 2)
        leaves_too.cancel()
        await settled()
        assert calls.waiting == 1
        leaves.cancel()
        await settled()
        assert list(gated.running) == ["b"]
        await gated.end("b")
        await stays

    run(scenario, max_concurrent=1)


def test_a_failure_reaches_all_who_wait_for_it_and_ends_what_they_alone_asked() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        three, single, well = await submitted(calls, "abx"), await submitted(calls, "a"), await submitted(calls, "c")
        await gated.end("a", error=UpstreamFailed("no"))
        for failed in (three, single):
            with pytest.raises(UpstreamFailed):
                await failed
        await settled()
        assert gated.cancelled == ["b"]
        assert list(gated.running) == ["c"]
        await gated.end("c")
        assert (await well).results == {"c": "C"}
        assert "x" not in gated.asked

    run(scenario)


def test_a_bug_in_a_call_is_an_internal_error_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        request = await submitted(calls, "a")
        await gated.end("a", error=RuntimeError("PRIVATE"))
        with pytest.raises(InternalError) as failed:
            await request
        assert failed.value.details["id"] in caplog.text

    run(scenario)
    assert "PRIVATE" not in caplog.text


def test_interactive_goes_before_bulk_and_callers_take_turns() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        requests = [
            await submitted(calls, "x"),
            await submitted(calls, "uv", BULK),
            await submitted(calls, "abc", Terms("one")),
            await submitted(calls, "de", Terms("two")),
        ]
        while gated.running:
            await gated.end(*gated.running)
        await asyncio.gather(*requests)
        assert gated.asked == list("xadbecuv")

    run(scenario, max_concurrent=1)


def test_a_full_queue_refuses_whole_requests_and_one_that_never_fits() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        admitted = [await submitted(calls, "a"), await submitted(calls, "bc")]
        with pytest.raises(Overloaded, match="2 calls wait already, 3 may"):
            await calls.submit({"d": "d", "e": "e"}, Terms())
        with pytest.raises(TooLong, match="4 calls to compute, 3 may wait"):
            await calls.submit(dict.fromkeys("defg", ""), Terms())
        while gated.running:
            await gated.end(*gated.running)
        await asyncio.gather(*admitted)
        assert gated.asked == ["a", "b", "c"]

    run(scenario, max_concurrent=1, max_waiting=3)


def test_closing_answers_what_was_admitted_and_refuses_what_is_new() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        admitted = await submitted(calls, "abc")
        closing = asyncio.create_task(calls.close())
        await settled()
        with pytest.raises(NotReady):
            await calls.submit({"d": "d"}, Terms())
        assert not closing.done()
        while gated.running:
            await gated.end(*gated.running)
        assert len((await admitted).results) == 3
        await closing

    run(scenario, max_concurrent=1)
