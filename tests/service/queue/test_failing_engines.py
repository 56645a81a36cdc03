"""Engines that fail in several ways: which requests get which error, and the next request is scored."""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentprm.errors import InternalError, NotReady, TooLong
from service.engine.contract import DeviceLost, OutOfMemory, SequenceScores, Unavailable
from service.engine.echo import EchoEngine
from service.queue.batcher import Batcher
from service.queue.work import Answer
from tests.service.echo_app import BrokenEngine, ThreadDied
from tests.service.null_observer import NullObserver
from tests.service.queue.batching import batching, submit


class SmallEngine(EchoEngine):
    """An engine with room for ``room`` tokens at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[int] = []

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        self.calls.append(len(token_ids))
        if sum(map(len, token_ids)) > self.room:
            raise OutOfMemory("no room")
        return super().score(token_ids, reads)


def test_a_batch_that_does_not_fit_into_memory_is_tried_once_more_each_sequence_alone() -> None:
    async def scenario() -> None:
        engine = SmallEngine(3)
        async with batching(engine) as batcher:
            together = await asyncio.gather(submit(batcher, [1, 2], [3, 4]), submit(batcher, [5]), submit(batcher, [6]))
        alone = [EchoEngine().score([ids], [[len(ids) - 1]])[0][0] for ids in ([1, 2], [3, 4], [5], [6])]
        assert [raw for answer in together for raw in answer.raw] == alone
        assert engine.calls == [4, 1, 1, 1, 1]

    asyncio.run(scenario())


def test_only_what_does_not_fit_into_memory_alone_fails() -> None:
    async def scenario() -> None:
        engine = SmallEngine(3)
        async with batching(engine) as batcher:
            asked = submit(batcher, [2, 2, 2, 2], [1]), submit(batcher, [3]), submit(batcher, [4], keys=["equal"])
            equal = submit(batcher, [4], keys=["equal"])
            wrong, right, *same = await asyncio.gather(*asked, equal, return_exceptions=True)
            assert isinstance(wrong, TooLong)
            assert wrong.details == {"tokens": 4}
            assert isinstance(right, Answer)
            assert all(isinstance(answer, Answer) for answer in same)
            assert engine.calls == [4, 1, 1, 1], "what failed in part is not computed further"
            assert isinstance(await submit(batcher, [5]), Answer)

    asyncio.run(scenario())


def test_a_lost_device_ends_the_loop_and_answers_every_waiter(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with batching(BrokenEngine(DeviceLost("the device has failed")), max_batch_tokens=1) as batcher:
            answers = await asyncio.gather(submit(batcher, [1]), submit(batcher, [2]), return_exceptions=True)
            assert [type(answer) for answer in answers] == [InternalError, InternalError]
            assert not batcher.alive

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(scenario())
    assert "the device has failed" in caplog.text


def test_an_engine_that_is_not_available_refuses_what_waits_and_computes_what_comes_later() -> None:
    async def scenario() -> None:
        engine = BrokenEngine(Unavailable("started again", retry_after=4.0))
        async with batching(engine, max_batch_tokens=1) as batcher:
            answers = await asyncio.gather(submit(batcher, [1]), submit(batcher, [2], [3]), return_exceptions=True)
            assert [type(answer) for answer in answers] == [NotReady, NotReady]
            assert [answer.retry_after for answer in answers if isinstance(answer, NotReady)] == [4.0, 4.0]
            assert batcher.queued_tokens == 0
            engine.failure = None
            assert isinstance(await submit(batcher, [4]), Answer)

    asyncio.run(scenario())


def test_an_engine_thread_that_is_gone_ends_the_loop_and_answers_every_waiter() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=9, max_queue_tokens=9, observer=NullObserver())
            batcher.start()
            thread.shutdown()
            with pytest.raises(InternalError):
                await submit(batcher, [1])
            assert not batcher.alive

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
    """Gives ``answer`` for every sequence that begins with 666."""

    def __init__(self, answer: list[float]) -> None:
        self.answer = answer

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        right = super().score(token_ids, reads)
        wrong = SequenceScores(self.answer, 1)
        return [wrong if ids[0] == 666 else score for ids, score in zip(token_ids, right, strict=True)]


@pytest.mark.parametrize("answer", [[math.nan], [math.inf], [], [0.0, 0.0]])
def test_a_score_that_is_none_fails_its_own_request_only(answer: list[float], caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with batching(Wrong(answer)) as batcher:
            wrong, right = await asyncio.gather(submit(batcher, [666]), submit(batcher, [5]), return_exceptions=True)
            assert isinstance(wrong, InternalError)
            assert isinstance(right, Answer)
        assert "This is a bug" in caplog.text


class Short(EchoEngine):
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        return super().score(token_ids, reads)[1:]


def test_too_few_results_fail_the_batch() -> None:
    async def scenario() -> None:
        async with batching(Short()) as batcher:
            with pytest.raises(InternalError):
                await submit(batcher, [1], [2])

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
    assert "scoring has ended, 2 requests fail" in caplog.text
