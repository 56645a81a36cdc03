"""Engines that fail in their several ways: who is answered what, and whether the next request is scored."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentprm.errors import InternalError, TooLong
from service.engine.contract import DeviceLost, OutOfMemory
from service.engine.echo import EchoEngine
from service.queue.batcher import Batcher
from service.queue.work import Answer
from tests.service.echo_app import BrokenEngine
from tests.service.queue.batching import batching, submit


class SmallEngine(EchoEngine):
    """A device with room for so many tokens at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[int] = []

    def score(
        self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], int]]:
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
            assert all(isinstance(one, Answer) for one in same)
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


def test_an_engine_thread_that_is_gone_ends_the_loop_and_answers_every_waiter() -> None:
    async def scenario() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(EchoEngine(), thread, max_batch_tokens=9, max_queue_tokens=9)
            batcher.start()
            thread.shutdown()
            with pytest.raises(InternalError):
                await submit(batcher, [1])
            assert not batcher.alive

    asyncio.run(scenario())
