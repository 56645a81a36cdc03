import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import DeadlineExceeded, NotReady, Overloaded, TooLong
from service.engine.echo import EchoEngine
from service.queue.batcher import Batcher
from service.queue.terms import Terms
from service.queue.work import Batch
from tests.service.echo_app import PATIENCE, GatedEngine, PrefixEchoEngine
from tests.service.null_observer import NullObserver
from tests.service.queue.batching import Sequences, batching, ends, queued, submit


def test_requests_that_wait_together_share_one_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine) as batcher, engine.held():
            first = submit(batcher, [1])
            await engine.entered()
            others = [await queued(batcher, [2, 3]), await queued(batcher, [4], [5])]
            engine.gate.set()
            await asyncio.gather(first, *others)
        assert engine.calls == [[[1]], [[2, 3], [4], [5]]]

    asyncio.run(scenario())


def test_requests_that_arrive_together_at_an_idle_engine_share_one_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine) as batcher:
            await asyncio.gather(submit(batcher, [1]), submit(batcher, [2]))
        assert engine.calls == [[[1], [2]]]

    asyncio.run(scenario())


sequences = st.lists(st.lists(st.integers(0, 5000), min_size=1, max_size=30), min_size=1, max_size=6)


@given(requests=st.lists(sequences, min_size=1, max_size=8), budget=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_every_request_gets_its_own_scores_and_every_batch_keeps_the_budget(
    requests: list[Sequences], budget: int
) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=budget, max_queue_tokens=10**6) as batcher:
            answers = await asyncio.gather(*(submit(batcher, *request) for request in requests))
            assert batcher.queued_tokens == 0
        for request, answer in zip(requests, answers, strict=True):
            assert answer.raw == [raw for raw, _ in EchoEngine().score(request, ends(request))]
            assert answer.reused == [0] * len(request)
        assert [ids for call in engine.calls for ids in call] == [ids for request in requests for ids in request]
        assert all(len(call) == 1 or sum(map(len, call)) <= budget for call in engine.calls)

    asyncio.run(scenario())


def test_a_batch_is_waited_for_where_that_is_asked_for() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=3, max_wait=PATIENCE) as batcher:
            first = await queued(batcher, [1])
            for _ in range(10):
                await asyncio.sleep(0)
            assert engine.calls == []
            await asyncio.gather(first, submit(batcher, [2, 3]))
        assert engine.calls == [[[1], [2, 3]]]

    asyncio.run(scenario())


def test_the_wait_for_a_batch_ends_though_nobody_else_comes() -> None:
    async def scenario() -> None:
        async with batching(EchoEngine(), max_wait=0.001) as batcher:
            assert (await submit(batcher, [1])).raw

    asyncio.run(scenario())


def test_a_full_queue_refuses_the_whole_request_and_tells_when_to_come_back() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_queue_tokens=5) as batcher:
            await submit(batcher, [1])
            async with engine.held():
                running = submit(batcher, [1])
                await engine.entered()
                waiting = await queued(batcher, [2, 2, 2])
                with pytest.raises(Overloaded) as refused:
                    await submit(batcher, [3], [3, 3])
                assert refused.value.retry_after is not None
                assert refused.value.retry_after > 0
                fitting = await queued(batcher, [4, 4])
                assert batcher.queued_tokens == 5
            await asyncio.gather(running, waiting, fitting)
        assert not any(3 in ids for call in engine.calls for ids in call)

    asyncio.run(scenario())


def test_a_request_over_the_bound_by_itself_is_too_long_however_idle_the_service() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_queue_tokens=4) as batcher:
            with pytest.raises(TooLong) as refused:
                await submit(batcher, [1, 1, 1], [2, 2])
            assert refused.value.details == {"tokens": 5, "limit": 4}
            await submit(batcher, [1, 1], [2, 2])

    asyncio.run(scenario())


def test_what_the_prefix_cache_holds_takes_no_place_in_the_queue() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(1000)
        async with batching(engine, max_queue_tokens=105) as batcher:
            await submit(batcher, [1] * 100)
            async with engine.held():
                running = submit(batcher, [2])
                await engine.entered()
                waiting = await queued(batcher, [1] * 100 + [2], [1] * 100 + [3], [1] * 100)
                assert batcher.queued_tokens == 3  # the last one is known, and still has to be looked up
            answers = await asyncio.gather(running, waiting)
            assert answers[1].reused == [100, 100, 100]
        assert engine.computed == [100, 1, 2]

    asyncio.run(scenario())


def test_a_cancelled_request_frees_its_place_and_costs_no_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_queue_tokens=3) as batcher:
            async with engine.held():
                running = submit(batcher, [1])
                await engine.entered()
                cancelled = await queued(batcher, [2, 2, 2])
                cancelled.cancel()
                await asyncio.wait({cancelled})
                assert batcher.queued_tokens == 0
                other = await queued(batcher, [3, 3, 3])
            await asyncio.gather(running, other)
        assert engine.calls == [[[1]], [[3, 3, 3]]]

    asyncio.run(scenario())


def test_what_could_not_be_in_time_is_refused_before_it_waits() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine) as batcher:
            for _ in range(3):
                await submit(batcher, [1])  # from the second on the pace is known
            now = asyncio.get_running_loop().time()
            async with engine.held():
                running = submit(batcher, [1])
                await engine.entered()
                waiting = await queued(batcher, [2] * 900)
                with pytest.raises(DeadlineExceeded) as refused:
                    await submit(batcher, [3], deadline=now)
                assert refused.value.details == {"stage": "admission"}
                patient = await queued(batcher, [3], deadline=now + 3600)
                stranger = await queued(batcher, [4], caller="another", deadline=now + 3600)
            await asyncio.gather(running, waiting, patient, stranger)

    asyncio.run(scenario())


def test_an_idle_engine_tries_whatever_the_deadline() -> None:
    async def scenario() -> None:
        async with batching(EchoEngine()) as batcher:
            await submit(batcher, [1])
            await submit(batcher, [1] * 900, deadline=asyncio.get_running_loop().time() + 1e-4)

    asyncio.run(scenario())


def test_closing_answers_what_was_admitted_and_refuses_what_comes_later() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=1) as batcher:
            async with engine.held():
                admitted = [await queued(batcher, [1]), await queued(batcher, [2])]
                closing = asyncio.create_task(batcher.close())
                await asyncio.sleep(0)
                with pytest.raises(NotReady):
                    await submit(batcher, [3])
            await asyncio.gather(closing, *admitted)
            assert not batcher.alive

    asyncio.run(scenario())


def test_a_batcher_that_was_not_started_is_not_ready() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=1, max_queue_tokens=1, observer=NullObserver())
            with pytest.raises(NotReady):
                await batcher.submit(batcher.prepare([[1]], [[0]], [1]), Terms())

    asyncio.run(scenario())


class BatchList(NullObserver):
    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def on_batch(self, batch: Batch) -> None:
        self.batches.append(batch)


def test_each_forward_is_reported() -> None:
    async def scenario() -> None:
        seen = BatchList()
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=9, max_queue_tokens=9, observer=seen)
            batcher.start()
            answer = await submit(batcher, [1, 2], [3])
            await batcher.close()
        assert [(batch.sequences, batch.computed, batch.reused) for batch in seen.batches] == [(2, 3, 0)]
        assert answer.forward == seen.batches[0].seconds
        assert answer.queue >= 0

    asyncio.run(scenario())


def test_what_was_cancelled_in_the_moment_the_engine_became_free_costs_no_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine) as batcher:
            idle = await queued(batcher, [1])
            idle.cancel()  # the batcher has been woken and not yet run
            other = await queued(batcher, [2])
            await asyncio.wait({idle, other})
        assert engine.calls == [[[2]]]

    asyncio.run(scenario())
