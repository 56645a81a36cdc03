"""A request that is pushed out is answered at once, and nothing of it stays behind."""

import asyncio

import pytest

from agentprm.errors import Overloaded
from service.queue.calls import CallQueue
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from tests.service.echo_app import GatedEngine
from tests.service.queue.batching import batching, queued, submit
from tests.service.queue.test_calls import INTERACTIVE, Gated, run, settled, submitted


def test_beside_a_full_queue_of_one_caller_another_is_admitted_and_the_newest_is_answered_429() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_queue_tokens=10) as batcher:
            async with engine.held():
                running = submit(batcher, [1], caller="flood")
                await engine.entered()
                flood = [await queued(batcher, [2] * 2, caller="flood") for _ in range(5)]
                other = await queued(batcher, [3] * 3, caller="other")
                with pytest.raises(Overloaded) as refused:
                    await flood[4]
                assert refused.value.details == {
                    "queued_tokens": 8,
                    "tokens": 2,
                    "limit": 10,
                    "held": 8,
                    "share": 5,
                }
                assert refused.value.retry_after is not None
                with pytest.raises(Overloaded):
                    await flood[3]
                assert batcher.queued_tokens == 9
                with pytest.raises(Overloaded):
                    await submit(batcher, [4] * 2, caller="flood")
                batcher.refuse_if_full("other", Priority.INTERACTIVE)
            await asyncio.gather(running, other, *flood[:3])

    asyncio.run(scenario())


def test_a_huge_request_that_has_begun_gives_way_and_its_forward_answers_nobody() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=2, max_queue_tokens=10) as batcher:
            async with engine.held():
                huge = submit(batcher, *([number] for number in range(10)), caller="flood")
                await engine.entered()
                assert batcher.queued_tokens == 8
                other = await queued(batcher, [7] * 2, [8] * 3, caller="other")
                with pytest.raises(Overloaded):
                    await huge
                assert batcher.queued_tokens == 5
            await other
            assert (batcher.queued_tokens, batcher.queued_sequences) == (0, 0)
        assert engine.calls == [[[0], [1]], [[7, 7]], [[8, 8, 8]]]

    asyncio.run(scenario())


def test_equal_work_of_another_caller_is_answered_though_the_first_to_ask_was_pushed_out() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_queue_tokens=8) as batcher:
            async with engine.held():
                running = submit(batcher, [1], caller="flood")
                await engine.entered()
                stays = await queued(batcher, [2] * 4, caller="flood")
                goes = await queued(batcher, [3] * 4, keys=["same"], caller="flood")
                other = await queued(batcher, [3] * 4, keys=["same"], caller="other")
                with pytest.raises(Overloaded):
                    await goes
            answers = await asyncio.gather(running, stays, other)
        assert answers[2].shared == [False]

    asyncio.run(scenario())


def test_pushed_out_calls_are_not_made_and_those_that_run_for_nobody_are_cancelled() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        flood = [await submitted(calls, "abc", Terms("flood")), await submitted(calls, "de", Terms("flood"))]
        assert (list(gated.running), calls.waiting) == (["a"], 4)
        other = await submitted(calls, "xy", Terms("other"))
        with pytest.raises(Overloaded):
            await flood[1]
        assert calls.waiting == 4
        while gated.running:
            await gated.end(*gated.running)
        await asyncio.gather(flood[0], other)
        assert set(gated.asked) == set("abcxy")

    run(scenario, max_concurrent=1, max_waiting=4)


def test_the_calls_of_a_request_that_is_pushed_out_after_it_began_are_cancelled() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        huge = await submitted(calls, "abcde", Terms("flood"))
        other = await submitted(calls, "xy", Terms("other"))
        with pytest.raises(Overloaded):
            await huge
        await settled()
        assert gated.cancelled == ["a"]
        while gated.running:
            await gated.end(*gated.running)
        await other
        assert gated.asked == ["a", "x", "y"]

    run(scenario, max_concurrent=1, max_waiting=5)


def test_a_caller_may_wait_for_calls_while_another_floods_the_server_of_a_judge() -> None:
    async def scenario(calls: CallQueue[str, str, str], gated: Gated) -> None:
        admitted = await submitted(calls, "abcd", INTERACTIVE)
        with pytest.raises(Overloaded):
            await calls.submit({"e": "e", "f": "f"}, INTERACTIVE)
        calls.refuse_if_full("other", Priority.INTERACTIVE)
        other = await submitted(calls, "x", Terms("other"))
        while gated.running:
            await gated.end(*gated.running)
        await asyncio.gather(admitted, other)

    run(scenario, max_concurrent=1, max_waiting=4)
