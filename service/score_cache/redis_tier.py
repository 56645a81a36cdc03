"""The score cache that replicas share: scores in Redis, read within a time budget and written after the reply.

A failing Redis delays a caller by at most the budget, and only until the breaker opens. Scores that cannot be written
wait, up to a number of them, until Redis works again.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import isfinite
from time import monotonic, perf_counter
from typing import Any, Final

from service.redis_client.breaker import FAILURES, CircuitBreaker, State
from service.redis_client.connections import MAX_CONNECTIONS, RedisServer, error_kind, safe_message
from service.score_cache.contract import CacheObserver
from service.score_cache.keys import Key, namespace_prefix
from service.score_cache.values import pack, unpack

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 1.0
"""Time limit of operations that no caller waits for: connects, writes, and reads that exceeded the budget."""
MAX_READS: Final = MAX_CONNECTIONS - 4  # the rest is for the writer and the probes
MAX_UNWRITTEN: Final = 16_384  # scores; the oldest are dropped beyond it
WRITE_BATCH_SIZE: Final = 512  # scores
PROBE_TTL_SECONDS: Final = 60
WARNING_INTERVAL_SECONDS: Final = 60.0
CANCEL_INTERVAL_SECONDS: Final = 0.1


class RedisTier:
    """A score cache in Redis.

    Args:
        server: a client for this cache alone, closed with it.
        namespace: beginning of the keys.
        budget: seconds that a caller waits for a read.
        ttl: seconds after which a score expires; 0: never.
        observer: receives counts and durations.
        pause: seconds before the first probe of a breaker.
    """

    def __init__(
        self,
        server: RedisServer,
        namespace: str,
        *,
        budget: float,
        ttl: int,
        observer: CacheObserver,
        pause: float = 0.25,
    ) -> None:
        self._server = server
        self._probe_key = namespace_prefix(namespace) + b"probe"
        self._budget = budget
        self._ttl = ttl
        self._observer = observer
        self._reads = CircuitBreaker("reading scores from Redis", self._probe_read, failures=FAILURES, pause=pause)
        self._writes = CircuitBreaker("writing scores to Redis", self._probe_write, failures=1, pause=pause)
        self._reading: set[asyncio.Task[list[object]]] = set()
        self._unwritten: dict[Key, float] = {}
        self._some_unwritten, self._all_written = asyncio.Event(), asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._warned_at: dict[str, float] = {}

    @property
    def states(self) -> dict[str, State]:
        """State of each breaker, by operation."""
        return {"read": self._reads.state, "write": self._writes.state}

    @property
    def unwritten(self) -> int:
        """Number of scores that wait to be written."""
        return len(self._unwritten)

    async def start(self) -> None:
        """Probes Redis, so that the first caller finds a connection. A failing Redis does not stop the start."""
        await asyncio.gather(self._reads.start(GRACE_SECONDS), self._writes.start(GRACE_SECONDS))
        self._writer = asyncio.create_task(self._write_forever(), name="score cache writer")

    async def close(self) -> None:
        if self._writer is not None:
            if self._unwritten and self._writes.is_closed:
                self._all_written.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_SECONDS):
                        await self._all_written.wait()
            # Repeated, because the client may raise an error of its own in place of the cancellation.
            while not self._writer.done():
                self._writer.cancel()
                await asyncio.wait({self._writer}, timeout=CANCEL_INTERVAL_SECONDS)
        self._observer.on_written(dropped=len(self._unwritten))
        self._unwritten.clear()
        await asyncio.gather(self._reads.stop(), self._writes.stop())
        for task in self._reading:
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading, timeout=GRACE_SECONDS)
        with suppress(Exception):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._server.close()

    async def get(self, keys: Sequence[Key]) -> dict[Key, float]:
        if not self._reads.is_closed or len(self._reading) >= MAX_READS:
            self._observer.on_lookup("redis", hits=0, misses=0, skipped=len(keys))
            return {}
        known = self._scores(keys, await self._read_in_time(keys))
        self._observer.on_lookup("redis", hits=len(known), misses=len(keys) - len(known))
        return known

    def put(self, scores: Mapping[Key, float]) -> None:
        self._unwritten |= {key: raw for key, raw in scores.items() if isfinite(raw)}
        over = len(self._unwritten) - MAX_UNWRITTEN
        for key in list(islice(self._unwritten, max(0, over))):
            del self._unwritten[key]
        if over > 0:
            self._observer.on_written(dropped=over)
        if self._unwritten:
            self._some_unwritten.set()

    async def _read_in_time(self, keys: Sequence[Key]) -> list[object]:
        """Returns the value of each key; None for all of them if the read fails or exceeds the budget.

        A late read goes on in the background: cancelling it would close its connection, or one that is being opened.
        """
        started = perf_counter()
        task = asyncio.create_task(self._server.read(keys))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        task.add_done_callback(_retrieve_exception)
        await asyncio.wait({task}, timeout=self._budget)
        if task.cancelled():  # by close()
            return [None] * len(keys)
        self._observer.on_operation("read", perf_counter() - started)
        failure = task.exception() if task.done() else self._too_slow()
        if failure is not None:
            self._failed("read", self._reads, failure)
            return [None] * len(keys)
        self._reads.record_success()
        return task.result()

    def _scores(self, keys: Sequence[Key], values: Sequence[object]) -> dict[Key, float]:
        known = {}
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            if (raw := unpack(key, value)) is None:
                self._observer.on_cache_error("read", "value")
                self._warn("read", "value", "what lies under a key is no score of ours; it will be overwritten")
                continue
            known[key] = raw
        return known

    async def _write_forever(self) -> None:
        while True:
            await self._writes.wait_until_closed()
            await self._some_unwritten.wait()
            batch = dict(islice(self._unwritten.items(), WRITE_BATCH_SIZE))
            started = perf_counter()
            try:
                await self._write({key: pack(key, raw) for key, raw in batch.items()}, self._ttl)
            except Exception as error:  # noqa: BLE001  (any error that a failing server makes the client raise)
                self._failed("write", self._writes, error)
                continue
            self._observer.on_operation("write", perf_counter() - started)
            self._observer.on_written(stored=len(batch))
            for key in batch:
                self._unwritten.pop(key, None)
            if not self._unwritten:
                self._some_unwritten.clear()
                self._all_written.set()

    async def _write(self, values: Mapping[Key, bytes], ttl: int) -> None:
        async with asyncio.timeout(GRACE_SECONDS):
            await self._server.write(values, ttl)

    async def _probe_read(self) -> None:
        """Reads twice: the first read may have to connect, the second is timed like a caller's."""
        with self._count_errors("read"):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._server.read([self._probe_key])
                started = perf_counter()
                await self._server.read([self._probe_key])
            if perf_counter() - started > self._budget:
                raise self._too_slow()

    async def _probe_write(self) -> None:
        with self._count_errors("write"):
            await self._write({self._probe_key: b"well"}, PROBE_TTL_SECONDS)

    @contextmanager
    def _count_errors(self, operation: str) -> Iterator[None]:
        """Counts an error of the block and raises it with a message that may be logged."""
        try:
            yield
        except Exception as error:
            self._observer.on_cache_error(operation, error_kind(error))
            raise RuntimeError(safe_message(error)) from error

    def _too_slow(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._budget * 1000:.0f} ms")

    def _failed(self, operation: str, breaker: CircuitBreaker, error: BaseException) -> None:
        self._observer.on_cache_error(operation, error_kind(error))
        self._warn(operation, error_kind(error), safe_message(error))
        breaker.record_failure()

    def _warn(self, operation: str, kind: str, what: str) -> None:
        """Logs one line for each kind of error, and not again within a minute: the metrics count the rest."""
        now = monotonic()
        if now - self._warned_at.get(operation + kind, -WARNING_INTERVAL_SECONDS) >= WARNING_INTERVAL_SECONDS:
            self._warned_at[operation + kind] = now
            logger.warning("a %s of the score cache failed (%s): %s", operation, kind, what)


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Marks the exception of a late read as seen; asyncio would log it otherwise."""
    if not task.cancelled():
        task.exception()
