"""Turns on the event loop for work that holds it: one piece at a time, callers in turn, with pauses in between."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LoopTurns:
    """Gives out turns, one at a time. After a turn the loop belongs to others for ``pause`` times as long.

    So this work takes 1 / (1 + ``pause``) of the loop at most, however much of it waits, and a short request is held up
    by one piece of it. Callers take turns, so that one with a thousand pieces delays another's by one.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._taken = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Waits for a turn, which lasts until the block ends. The block must not await."""
        await self._wait(caller)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            loop.call_later(self._pause * (loop.time() - started), self._give)

    async def _wait(self, caller: str) -> None:
        if not self._taken:
            self._taken = True
            return
        given = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():  # the turn was given, but nobody is left to take it
                self._give()
            raise

    def _give(self) -> None:
        """Gives the turn to the next caller's next piece; to nobody if none waits."""
        while self._waiting:
            caller = next(iter(self._waiting))
            pieces = self._waiting.pop(caller)
            given = pieces.popleft()
            if pieces:
                self._waiting[caller] = pieces  # behind the other callers
            if not given.done():
                given.set_result(None)
                return
        self._taken = False
