"""Equal work of several requests is computed once, even if some of them are cancelled meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agentprm.errors import InternalError
from service.queue.batcher import Batcher
from service.queue.fair_queue import Priority
from tests.service.echo_app import BrokenEngine, GatedEngine
from tests.service.queue.batching import batching, queued

Scenario = Callable[[Batcher, GatedEngine], Awaitable[None]]
OTHER, SAME = [9, 9], [1, 2, 3]
KEY = ["same"]


def run(scenario: Scenario, max_batch_tokens: int = 100) -> list[list[list[int]]]:
    """Runs ``scenario`` and returns the engine's calls."""

    async def inside() -> list[list[list[int]]]:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=max_batch_tokens) as batcher:
            await scenario(batcher, engine)
        return engine.calls

    return asyncio.run(inside())


def test_two_that_wait_share_one_computation() -> None:
    async def scenario(batcher: Batcher, engine: GatedEngine) -> None:
        async with engine.held():
            first = await queued(batcher, OTHER)
            await engine.entered()
            waiting = [await queued(batcher, SAME, keys=KEY) for _ in range(3)]
        leader, *followers = await asyncio.gather(*waiting)
        await first
        assert leader.raw == followers[0].raw == followers[1].raw
        assert (leader.shared, leader.reused) == ([False], [0])
        assert all((answer.shared, answer.reused) == ([True], [3]) for answer in followers)

    assert run(scenario) == [[OTHER], [SAME]]


def test_who_comes_while_it_is_computed_gets_that_answer() -> None:
    async def scenario(batcher: Batcher, engine: GatedEngine) -> None:
        async with engine.held():
            leader = await queued(batcher, SAME, keys=KEY)
            await engine.entered()
            follower = await queued(batcher, SAME, keys=KEY)
        assert (await leader).raw == (await follower).raw
        assert batcher.queued_tokens == 0

    assert run(scenario) == [[SAME]]


@pytest.mark.parametrize("in_the_engine", [True, False])
def test_a_leader_that_leaves_does_not_take_its_followers_along(in_the_engine: bool) -> None:
    async def scenario(batcher: Batcher, engine: GatedEngine) -> None:
        async with engine.held():
            first = await queued(batcher, *([SAME] if in_the_engine else [OTHER]), keys=KEY if in_the_engine else None)
            await engine.entered()
            leader = first if in_the_engine else await queued(batcher, SAME, keys=KEY)
            follower = await queued(batcher, SAME, keys=KEY)
            leader.cancel()
            await asyncio.wait({leader})
        answer = await follower
        assert answer.raw == [[6 / 125 - 4]]
        if not in_the_engine:
            await first

    assert run(scenario) == ([[SAME]] if in_the_engine else [[OTHER], [SAME]])


def test_an_interactive_request_does_not_wait_for_the_turn_of_equal_bulk_work() -> None:
    async def scenario(batcher: Batcher, engine: GatedEngine) -> None:
        async with engine.held():
            first = await queued(batcher, OTHER)
            await engine.entered()
            bulk = [await queued(batcher, [5, number], priority=Priority.BULK, keys=[number]) for number in range(3)]
            slow = await queued(batcher, SAME, keys=KEY, priority=Priority.BULK)
            fast = await queued(batcher, SAME, keys=KEY)
        await asyncio.gather(first, *bulk, slow, fast)
        assert (await slow).shared == [True]
        assert (await fast).shared == [False]

    calls = run(scenario, max_batch_tokens=2)
    assert calls[1] == [SAME]
    assert sum(call.count(SAME) for call in calls) == 1


def test_a_request_partly_answered_by_another_computes_the_rest() -> None:
    async def scenario(batcher: Batcher, engine: GatedEngine) -> None:
        async with engine.held():
            leader = await queued(batcher, SAME, keys=KEY)
            await engine.entered()
            mixed = await queued(batcher, [4, 4], SAME, [5], keys=["a", *KEY, "b"])
        answer = await mixed
        await leader
        assert answer.shared == [False, True, False]
        assert answer.raw == [[8 / 125 - 4], [6 / 125 - 4], [5 / 125 - 4]]

    assert run(scenario) == [[SAME], [[4, 4], [5]]]


def test_a_request_that_asks_twice_for_the_same_is_answered_twice() -> None:
    async def scenario(batcher: Batcher, _: GatedEngine) -> None:
        answer = await (await queued(batcher, SAME, SAME, keys=KEY * 2))
        assert answer.raw == [[6 / 125 - 4]] * 2
        assert answer.shared == [False, True]

    assert run(scenario) == [[SAME]]


def test_a_failed_forward_answers_all_who_were_in_it() -> None:
    async def scenario() -> None:
        async with batching(BrokenEngine(ValueError())) as batcher:
            tasks = [await queued(batcher, SAME, keys=KEY) for _ in range(3)]
            for failed in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(failed, InternalError)
            assert batcher.queued_tokens == 0

    asyncio.run(scenario())


def test_nothing_is_remembered_of_who_has_left() -> None:
    async def scenario(batcher: Batcher, _: GatedEngine) -> None:
        await (await queued(batcher, SAME, SAME, keys=KEY * 2))
        await (await queued(batcher, SAME, keys=KEY))
        assert not batcher._waiters._by_key

    assert run(scenario) == [[SAME], [SAME]]
