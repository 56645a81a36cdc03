"""A circuit breaker: after some failures in a row nobody tries any more, but one probe now and then.

closed ──failures in a row──> open ──after a pause──> half open ──probe──┬─ well ──> closed
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
SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 8.0


class State(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitBreaker:
    """Starts open, so that a first probe decides before anybody waits.

    Args:
        name: of what it guards, for the log.
        probe: tries what is guarded; raises while that is not well.
        failures: how many in a row open it.
        pause: seconds before a probe; doubled after each that failed, up to ``LONGEST_PAUSE``.
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
        self._most = failures
        self._pause = pause
        self._failed = 0
        self._since = monotonic()
        self._closed = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        return self.state is State.CLOSED

    async def start(self, patience: float) -> None:
        """Probes at once; returns when it is closed, or after so many seconds, whichever is first."""
        self._task = asyncio.create_task(self._recover(0.0), name=f"probe {self._name}")
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._closed.wait()

    async def stop(self) -> None:
        """Opens it for good: what is guarded is about to go."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.state = State.OPEN
        self._closed.clear()

    async def closed(self) -> None:
        """Returns while or once it is closed."""
        await self._closed.wait()

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self) -> None:
        """Counts; nothing while it is open already."""
        self._failed += 1
        if self.is_closed and self._failed >= self._most:
            logger.warning("%s: given up until a probe is well", self._name)
            self.state = State.OPEN
            self._closed.clear()
            self._since = monotonic()
            self._task = asyncio.create_task(self._recover(self._pause), name=f"probe {self._name}")

    async def _recover(self, pause: float) -> None:
        probes = 0
        while not await self._probed_well(pause, probes):
            # A client may raise an error of its own in place of the cancellation.
            if self._stopped:
                return
            probes += 1
            pause = min(LONGEST_PAUSE, max(self._pause, 2 * pause))
        self._failed = 0
        self.state = State.CLOSED
        self._closed.set()
        if probes or pause:
            logger.info("%s: well again after %.1f s", self._name, monotonic() - self._since)

    async def _probed_well(self, pause: float, probes: int) -> bool:
        await asyncio.sleep(pause)
        self.state = State.HALF_OPEN
        try:
            await self._probe()
        except Exception as error:  # noqa: BLE001  (whatever a sick server makes the client raise)
            self.state = State.OPEN
            if not probes:
                logger.warning("%s: a probe failed: %s", self._name, str(error) or type(error).__name__)
            return False
        return True
