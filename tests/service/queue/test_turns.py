"""Turns as the batcher gives them: pieces of long work, priorities and callers."""

import asyncio

import pytest

from service.engine.echo import EchoEngine
from service.queue.fair_queue import Priority
from tests.service.echo_app import GatedEngine, PrefixEchoEngine
from tests.service.queue.batching import batching, queued, submit


def test_an_interactive_request_is_answered_between_the_pieces_of_a_long_one() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        long = list(range(1000))
        async with batching(engine, in_pieces=True) as batcher:
            async with engine.held():
                bulk = await queued(batcher, long, priority=Priority.BULK, caller="trainer")
                await engine.entered()
                interactive = await queued(batcher, [5])
            await interactive
            assert not bulk.done()
            answer = await bulk
        assert answer.raw == [[EchoEngine().score([long], [[999]])[0][0][0]]]
        assert answer.reused == [0]
        assert engine.calls[1] == [[5]]
        assert engine.computed == [100, 1, *[100] * 9]

    asyncio.run(scenario())


def test_bulk_gets_on_while_interactive_requests_never_end() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        async with batching(engine, max_batch_tokens=10, in_pieces=True) as batcher:
            bulk = await queued(batcher, list(range(100)), priority=Priority.BULK)

            async def caller(first: int) -> None:
                token = first
                while not bulk.done():
                    token += 2
                    await submit(batcher, [token] * 10)

            await asyncio.gather(caller(1000), caller(1001))
            assert (await bulk).raw == [[99 * 50 % 1000 / 125 - 4]]
        led = [call[0][0] < 1000 for call in engine.calls]
        assert led.count(True) == 10

    asyncio.run(scenario())


@pytest.mark.parametrize("kept", [0, 50, 250])
def test_pieces_that_are_not_kept_end_in_the_whole_sequence(kept: int) -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(kept)
        long = list(range(1000))
        async with batching(engine, in_pieces=True) as batcher:
            answer = await submit(batcher, long)
        assert answer.raw == [[EchoEngine().score([long], [[999]])[0][0][0]]]
        assert answer.reused == [0]
        assert len(engine.calls) == kept // 100 + 2
        assert engine.calls[-1] == [long]

    asyncio.run(scenario())


def test_a_long_sequence_goes_at_once_to_an_engine_that_keeps_nothing() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with batching(engine, in_pieces=False) as batcher:
            await submit(batcher, [1] * 1000)
        assert engine.calls == [[[1] * 1000]]

    asyncio.run(scenario())


def test_a_request_cancelled_between_its_pieces_costs_no_more_forwards() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        async with batching(engine, in_pieces=True) as batcher:
            async with engine.held():
                long = await queued(batcher, [1] * 500, [2] * 500)
                await engine.entered()
                assert batcher.queued_tokens == 900
                long.cancel()
                await asyncio.wait({long})
                assert batcher.queued_tokens == 0
            await submit(batcher, [3])
        assert engine.calls == [[[1] * 100], [[3]]]

    asyncio.run(scenario())


def test_the_same_long_work_of_two_callers_is_computed_once() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        async with batching(engine, in_pieces=True) as batcher:
            first, second = await asyncio.gather(
                submit(batcher, [1] * 300, caller="a"), submit(batcher, [1] * 300, caller="b")
            )
        assert first.raw == second.raw
        assert sum(engine.computed) == 300
        assert len(engine.calls) == 4  # each finds what the other has computed, so six pieces are not needed
        assert sum(first.reused) + sum(second.reused) == 300

    asyncio.run(scenario())


def test_candidates_of_one_request_share_a_batch() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        candidates = [[1] * 50 + [number] for number in range(2, 40)]
        async with batching(engine) as batcher, engine.held():
            running = submit(batcher, [0])
            await engine.entered()
            others = [await queued(batcher, [number] * 9, caller="other") for number in range(100, 103)]
            ranking = await queued(batcher, *candidates)
            engine.gate.set()
            await asyncio.gather(running, ranking, *others)
        assert engine.calls[1] == [[100] * 9, *candidates]

    asyncio.run(scenario())
