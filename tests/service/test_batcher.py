import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import DeadlineExceeded, InternalError, NotReady, Overloaded
from service.batcher import Answer, Batch, Batcher, Engine
from service.echo import EchoEngine
from tests.service.echo_app import PATIENCE, BrokenEngine, GatedEngine, ThreadDied

Sequences = list[list[int]]


@asynccontextmanager
async def batching(
    engine: Engine, *, max_batch_tokens: int = 100, max_queue_tokens: int = 1000, max_wait: float = 0.0
) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as thread:
        batcher = Batcher(
            engine, thread, max_batch_tokens=max_batch_tokens, max_queue_tokens=max_queue_tokens, max_wait=max_wait
        )
        batcher.start()
        try:
            async with asyncio.timeout(PATIENCE):
                yield batcher
        finally:
            await batcher.close()


def ends(token_ids: Sequences) -> Sequences:
    return [[len(ids) - 1] for ids in token_ids]


def submit(batcher: Batcher, *token_ids: list[int], deadline: float | None = None) -> asyncio.Task[Answer]:
    return asyncio.create_task(batcher.submit(token_ids, ends(list(token_ids)), deadline))


async def queued(batcher: Batcher, *token_ids: list[int], deadline: float | None = None) -> asyncio.Task[Answer]:
    """A request that has reached the queue."""
    task = submit(batcher, *token_ids, deadline=deadline)
    await asyncio.sleep(0)
    return task


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
            assert answer.raw == EchoEngine().score(request, ends(request))
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


def test_an_engine_failure_answers_every_waiter_and_the_next_request_works(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        engine = BrokenEngine(RuntimeError("out of memory"))
        async with batching(engine) as batcher:
            answers = await asyncio.gather(submit(batcher, [1]), submit(batcher, [2]), return_exceptions=True)
            assert [type(answer) for answer in answers] == [InternalError, InternalError]
            assert "memory" not in str(answers[0])
            assert answers[0].details["id"] in caplog.text  # type: ignore[union-attr]
            assert "out of memory" in caplog.text
            assert batcher.queued_tokens == 0
            engine.failure = None
            assert (await submit(batcher, [3])).raw == [[-3.976]]
            assert batcher.alive

    asyncio.run(scenario())


def test_a_failure_takes_the_rest_of_its_request_out_of_the_queue() -> None:
    async def scenario() -> None:
        engine = BrokenEngine(RuntimeError())
        async with batching(engine, max_batch_tokens=1) as batcher:
            with pytest.raises(InternalError):
                await submit(batcher, [1], [2], [3])
            assert batcher.queued_tokens == 0

    asyncio.run(scenario())


class Wrong(EchoEngine):
    """Answers as told for every sequence that begins with 666."""

    def __init__(self, answer: list[float]) -> None:
        self.answer = answer

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        right = super().score(token_ids, reads)
        return [self.answer if ids[0] == 666 else raw for ids, raw in zip(token_ids, right, strict=True)]


@pytest.mark.parametrize("answer", [[math.nan], [math.inf], [], [0.0, 0.0]])
def test_a_score_that_is_none_fails_its_own_request_only(answer: list[float], caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with batching(Wrong(answer)) as batcher:
            wrong, right = await asyncio.gather(submit(batcher, [666]), submit(batcher, [5]), return_exceptions=True)
            assert isinstance(wrong, InternalError)
            assert isinstance(right, Answer)
        assert "This is a bug" in caplog.text

    asyncio.run(scenario())


class Short(EchoEngine):
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        return super().score(token_ids, reads)[1:]


def test_too_few_results_fail_the_batch() -> None:
    async def scenario() -> None:
        async with batching(Short()) as batcher:
            with pytest.raises(InternalError):
                await submit(batcher, [1], [2])

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


def test_an_empty_queue_takes_a_request_over_its_bound() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, max_batch_tokens=2, max_queue_tokens=1) as batcher:
            assert len((await submit(batcher, [1, 1, 1], [2, 2])).raw) == 2
        assert engine.calls == [[[1, 1, 1]], [[2, 2]]]

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


def test_an_expired_request_costs_no_forward() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine) as batcher:
            async with engine.held():
                running = submit(batcher, [1])
                await engine.entered()
                expired = await queued(batcher, [2], deadline=asyncio.get_running_loop().time())
            with pytest.raises(DeadlineExceeded):
                await expired
            await running
        assert engine.calls == [[[1]]]

    asyncio.run(scenario())


def test_a_dead_loop_shows_and_answers_every_waiter(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with batching(BrokenEngine(ThreadDied()), max_batch_tokens=1) as batcher:
            answers = await asyncio.gather(submit(batcher, [1]), submit(batcher, [2]), return_exceptions=True)
            assert [type(answer) for answer in answers] == [InternalError, InternalError]
            assert not batcher.alive
            with pytest.raises(NotReady):
                await submit(batcher, [3])

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(scenario())
    assert "This is a bug" in caplog.text


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
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=1, max_queue_tokens=1)
            with pytest.raises(NotReady):
                await batcher.submit([[1]], [[0]])

    asyncio.run(scenario())


def test_each_forward_is_reported() -> None:
    async def scenario() -> None:
        batches: list[Batch] = []
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=9, max_queue_tokens=9, on_batch=batches.append)
            batcher.start()
            answer = await submit(batcher, [1, 2], [3])
            await batcher.close()
        assert [(batch.sequences, batch.tokens) for batch in batches] == [(2, 3)]
        assert answer.forward == batches[0].seconds
        assert answer.queue >= 0

    asyncio.run(scenario())
