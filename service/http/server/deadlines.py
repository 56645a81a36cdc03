"""Deadlines of many connections that all have the same number of seconds."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls ``expire`` with each item that is still there ``seconds`` after it was added.

    All items wait equally long, so the first one added is the first to expire, and one timer of the event loop serves
    them all. Adding and removing an item costs under a microsecond.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expire = expire
        self._due: OrderedDict[T, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, item: T) -> bool:
        return item in self._due

    def add(self, item: T) -> None:
        """Starts the time of an item, or starts it again."""
        self._due.pop(item, None)
        self._due[item] = due = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._run)

    def discard(self, item: T) -> None:
        self._due.pop(item, None)

    def oldest(self, age: float) -> T | None:
        """Returns the item that was added first, if that is at least ``age`` seconds ago."""
        for item, due in self._due.items():
            return item if due - self._seconds + age <= self._loop.time() else None
        return None

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > now:
                self._timer = self._loop.call_at(due, self._run)
                return
            del self._due[item]
            self._expire(item)
