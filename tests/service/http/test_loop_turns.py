"""Work that holds the event loop takes turns."""

import asyncio

from service.http.loop_turns import LoopTurns
from tests.service.echo_app import PATIENCE, pass_time


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_callers_take_turns_however_many_one_of_them_asks_for() -> None:
    done: list[str] = []

    async def work(turns: LoopTurns, caller: str) -> None:
        async with turns.turn(caller):
            done.append(caller)

    async def scenario() -> None:
        turns = LoopTurns(pause=0)
        waiting = [asyncio.create_task(work(turns, caller)) for caller in "aaaab"]
        await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)

    asyncio.run(scenario())
    assert done == ["a", "a", "b", "a", "a"]


def test_the_loop_belongs_to_others_after_a_turn() -> None:
    done: list[str] = []

    async def work(turns: LoopTurns, caller: str) -> None:
        async with turns.turn(caller):
            pass_time(100)  # as if the block had held the loop so long
            done.append(caller)

    async def scenario() -> None:
        turns = LoopTurns(pause=4)
        waiting = asyncio.gather(*(work(turns, caller) for caller in "ab"))
        await settle()
        assert done == ["a"]
        pass_time(399)
        await settle()
        assert done == ["a"]
        pass_time(2)
        await asyncio.wait_for(waiting, PATIENCE)

    asyncio.run(scenario())
    assert done == ["a", "b"]


def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    async def scenario() -> None:
        turns = LoopTurns(pause=0)
        first = turns.turn("a")
        await first.__aenter__()
        left, stays = (asyncio.create_task(turns.turn(caller).__aenter__()) for caller in "bc")
        await settle()
        await first.__aexit__(None, None, None)
        left.cancel()
        await asyncio.wait_for(stays, PATIENCE)
        assert left.cancelled()

    asyncio.run(scenario())


def test_a_turn_is_given_back_if_its_work_fails() -> None:
    async def fail(turns: LoopTurns) -> None:
        async with turns.turn("a"):
            raise LookupError

    async def scenario() -> None:
        turns = LoopTurns(pause=0)
        failed = await asyncio.wait_for(asyncio.gather(fail(turns), fail(turns), return_exceptions=True), PATIENCE)
        assert [type(error) for error in failed] == [LookupError, LookupError]

    asyncio.run(scenario())
