"""A circuit breaker: after several consecutive failures only a probe tries again, after growing pauses.

closed ──consecutive failures──> open ──after a pause──> half open ──probe──┬─ succeeds ──> closed
                                   ^                                        │
                                   └──────────── twice the pause ───────────┘
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import IntEnum
from time import monotonic
from typing import Final

logger = logging.getLogger(__name__)

FAILURES: Final = 3
"""Consecutive failures that open a breaker."""
SHORTEST_PAUSE: Final = 0.25  # seconds
LONGEST_PAUSE: Final = 8.0  # seconds


class State(IntEnum):
    """States of a breaker; the metric reports these numbers."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitBreaker:
    """Tells callers whether to try a service that may be failing.

    It starts open, so that a first probe decides before any caller waits.

    Args:
        name: name of the service in the log.
        probe: tries the service; raises while it fails.
        failures: consecutive failures that open the breaker.
        pause: seconds before a probe; doubled after each failed probe, up to ``LONGEST_PAUSE``.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        *,
        failures: int = FAILURES,
        pause: float = SHORTEST_PAUSE,
    ) -> None:
        self.state = State.OPEN
        self._name = name
        self._probe = probe
        self._max_failures = failures
        self._pause = pause
        self._failures = 0
        self._opened_at = monotonic()
        self._closed = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        return self.state is State.CLOSED

    async def start(self, max_wait: float) -> None:
        """Probes at once. Returns when the breaker is closed, or after ``max_wait`` seconds; probes go on then."""
        self._task = asyncio.create_task(self._recover(0.0), name=f"probe {self._name}")
        with suppress(TimeoutError):
            async with asyncio.timeout(max_wait):
                await self._closed.wait()

    async def stop(self) -> None:
        """Stops the probes and opens the breaker for good."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.state = State.OPEN
        self._closed.clear()

    async def wait_until_closed(self) -> None:
        """Waits until the breaker is closed."""
        await self._closed.wait()

    def record_success(self) -> None:
        self._failures = 0

    def record_failure(self) -> None:
        """Counts a failure; opens the breaker at the last of ``failures`` consecutive ones."""
        self._failures += 1
        if self.is_closed and self._failures >= self._max_failures:
            logger.warning("%s: given up until a probe is well", self._name)
            self.state = State.OPEN
            self._closed.clear()
            self._opened_at = monotonic()
            self._task = asyncio.create_task(self._recover(self._pause), name=f"probe {self._name}")

    async def _recover(self, pause: float) -> None:
        probes = 0
        while not await self._probe_succeeds(pause, probes):
            # A client may raise an error of its own in place of the cancellation.
            if self._stopped:
                return
            probes += 1
            pause = min(LONGEST_PAUSE, max(self._pause, 2 * pause))
        self._failures = 0
        self.state = State.CLOSED
        self._closed.set()
        if probes or pause:
            logger.info("%s: well again after %.1f s", self._name, monotonic() - self._opened_at)

    async def _probe_succeeds(self, pause: float, probes: int) -> bool:
        await asyncio.sleep(pause)
        self.state = State.HALF_OPEN
        try:
            await self._probe()
        except Exception as error:  # noqa: BLE001  (any error that a failing server makes the client raise)
            self.state = State.OPEN
            if not probes:
                logger.warning("%s: a probe failed: %s", self._name, str(error) or type(error).__name__)
            return False
        return True
