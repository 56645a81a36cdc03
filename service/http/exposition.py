"""The text of ``/metrics``, rendered once for all scrapes that wait for it."""

import asyncio
from collections.abc import Callable
from typing import Final

PAUSE_SECONDS: Final = 0.1
"""Seconds between two renderings. One holds the event loop for about 10 ms."""


class SharedExposition:
    """Renders the metrics when a scrape asks, at most ten times a second. Scrapes that wait share the next rendering.

    A rendering starts after the scrapes that it answers have arrived, so each sees all that happened before it.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._next: asyncio.Task[bytes] | None = None
        self._allowed = 0.0

    async def __call__(self) -> bytes:
        if self._next is None:
            self._next = asyncio.create_task(self._render_next(), name="metrics")
        return await asyncio.shield(self._next)

    async def _render_next(self) -> bytes:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._allowed - loop.time()))
        self._next = None
        text = self._render()
        self._allowed = loop.time() + PAUSE_SECONDS
        return text
