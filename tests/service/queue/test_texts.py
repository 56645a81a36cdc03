"""Texts before the tokenizer: short ones at once, others in turns of their callers, and nothing for those who left."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import DeadlineExceeded, Overloaded, TooLong
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.queue.texts import JOB_CHARS, MAX_CHARS_ON_EVENT_LOOP, MAX_WAITING_CHARS, TextQueue
from tests.service.echo_app import PATIENCE, pass_time

LONG = JOB_CHARS  # a job of its own


class Renderings:
    """Makes renderings that note their names in ``done`` and wait while the gate is closed."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._entered = threading.Semaphore(0)

    def of(self, name: str) -> Callable[[], str]:
        return partial(self._render, name)

    def _render(self, name: str) -> str:
        self._entered.release()
        assert self.gate.wait(PATIENCE)
        self.done.append(name)
        return name

    async def entered(self) -> None:
        """Waits until the next rendering has begun; each counts once."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE)


@asynccontextmanager
async def waiting_texts() -> AsyncIterator[tuple[TextQueue, Renderings]]:
    renderings = Renderings()
    with ThreadPoolExecutor(1) as thread:
        try:
            async with asyncio.timeout(PATIENCE):
                yield TextQueue(thread), renderings
        finally:
            renderings.gate.set()


def ask(
    texts: TextQueue, renderings: Renderings, *names: str, chars: int = LONG, **terms: Any
) -> asyncio.Task[list[str]]:
    """Asks for one rendering per name, each of ``chars``."""
    calls = [renderings.of(name) for name in names]
    return asyncio.create_task(texts.each(calls, [chars] * len(names), Terms(**terms)))


async def hold(texts: TextQueue, renderings: Renderings, **terms: Any) -> asyncio.Task[list[str]]:
    """Keeps the thread busy with a rendering of the name "first" until the gate opens."""
    renderings.gate.clear()
    first = ask(texts, renderings, "first", **terms)
    await renderings.entered()
    return first


@given(requests=st.lists(st.lists(st.integers(0, 3 * JOB_CHARS), min_size=1, max_size=5), max_size=8))
@settings(max_examples=30, deadline=None)
def test_every_rendering_is_called_once_and_its_result_has_its_place(requests: list[list[int]]) -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            asked = [
                texts.each([renderings.of(f"{at}.{place}") for place in range(len(chars))], chars, Terms(f"{at % 3}"))
                for at, chars in enumerate(requests)
            ]
            results = await asyncio.gather(*asked)
            assert results == [[f"{at}.{place}" for place in range(len(chars))] for at, chars in enumerate(requests)]
            assert sorted(renderings.done) == sorted(name for names in results for name in names)
            assert texts.chars == 0

    asyncio.run(scenario())


def test_a_short_text_is_rendered_while_the_thread_is_busy() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            first = await hold(texts, renderings)
            assert await texts.each([threading.get_ident], [MAX_CHARS_ON_EVENT_LOOP], Terms()) == [
                threading.get_ident()
            ]
            assert not first.done()

    asyncio.run(scenario())


def test_another_caller_waits_for_no_more_than_one_job_and_the_one_that_runs() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            await hold(texts, renderings, caller="flood")
            flood = [ask(texts, renderings, f"{at}a", f"{at}b", caller="flood") for at in range(5)]
            await asyncio.sleep(0)
            other = ask(texts, renderings, "other", caller="other")
            await asyncio.sleep(0)
            renderings.gate.set()
            await asyncio.gather(other, *flood)
            assert renderings.done.index("other") <= 2
            assert [name for name in renderings.done if name[0].isdigit()] == [
                f"{at}{item}" for at in range(5) for item in "ab"
            ]

    asyncio.run(scenario())


def test_interactive_requests_come_before_bulk() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            await hold(texts, renderings)
            bulk = ask(texts, renderings, "bulk", priority=Priority.BULK)
            await asyncio.sleep(0)
            interactive = ask(texts, renderings, "interactive")
            await asyncio.sleep(0)
            renderings.gate.set()
            await asyncio.gather(bulk, interactive)
            assert renderings.done == ["first", "interactive", "bulk"]

    asyncio.run(scenario())


def test_a_caller_with_too_much_text_is_refused_and_no_other_is() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            first = await hold(texts, renderings, caller="flood")
            much = ask(texts, renderings, "much", chars=MAX_WAITING_CHARS - LONG, caller="flood")
            await asyncio.sleep(0)
            with pytest.raises(Overloaded) as refused:
                await ask(texts, renderings, "more", chars=LONG, caller="flood")
            assert refused.value.retry_after
            assert refused.value.details == {
                "queued_characters": MAX_WAITING_CHARS,
                "characters": LONG,
                "limit": MAX_WAITING_CHARS,
            }
            other = ask(texts, renderings, "other", chars=2 * MAX_WAITING_CHARS, caller="other")
            await asyncio.sleep(0)
            assert texts.chars == 3 * MAX_WAITING_CHARS
            renderings.gate.set()
            await asyncio.gather(first, much, other)
            assert await ask(texts, renderings, "later", caller="flood") == ["later"]
            assert texts.chars == 0

    asyncio.run(scenario())


def test_work_for_a_rendered_request_waits_for_its_turn_and_is_never_refused() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            first = await hold(texts, renderings, caller="flood")
            much = ask(texts, renderings, "much", chars=MAX_WAITING_CHARS, caller="other")
            await asyncio.sleep(0)
            work = asyncio.create_task(texts.in_turn(renderings.of("work"), LONG, Terms("other")))
            await asyncio.sleep(0)
            assert renderings.done == []
            renderings.gate.set()
            assert await work == "work"
            await asyncio.gather(first, much)
            assert renderings.done == ["first", "much", "work"]

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_costs_no_further_rendering() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            await hold(texts, renderings)
            left = ask(texts, renderings, "left")
            half = ask(texts, renderings, "half a", "half b")
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.sleep(0)
            renderings.gate.set()
            await half
            assert renderings.done == ["first", "half a", "half b"]

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_in_its_job_leaves_its_other_items() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            renderings.gate.clear()
            left = ask(texts, renderings, *"abc", chars=JOB_CHARS // 2)  # "a" and "b" are one job
            await renderings.entered()
            left.cancel()
            await asyncio.sleep(0)
            renderings.gate.set()
            assert await ask(texts, renderings, "next") == ["next"]
            assert renderings.done == ["a", "next"]
            assert texts.chars == 0

    asyncio.run(scenario())


def test_a_deadline_that_has_passed_costs_nothing() -> None:
    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            deadline = asyncio.get_running_loop().time() + 5.0
            pass_time(5.0)
            for chars in (1, LONG):
                with pytest.raises(DeadlineExceeded) as late:
                    await ask(texts, renderings, "late", chars=chars, deadline=deadline)
                assert late.value.details == {"stage": "tokenize"}
            assert renderings.done == []

    asyncio.run(scenario())


class Panic(BaseException):
    """The exception of a tokenizer that fails within."""


@pytest.mark.parametrize("error", [TooLong("too long"), ValueError("a fault"), Panic()])
def test_an_error_ends_its_request_and_no_other(error: BaseException) -> None:
    def fail() -> str:
        raise error

    async def scenario() -> None:
        async with waiting_texts() as (texts, renderings):
            first = await hold(texts, renderings)
            failing = texts.each([fail, renderings.of("after it")], [LONG, LONG], Terms())
            other = ask(texts, renderings, "other")
            renderings.gate.set()
            with pytest.raises(type(error)):
                await failing
            await asyncio.gather(first, other)
            assert renderings.done == ["first", "other"]

    asyncio.run(scenario())
