"""The score cache that replicas share: scores in Redis, read within a budget of time and written behind the answers.

A sick Redis costs its callers at most the budget, and that only until the breaker opens. What could not be written
waits, up to a number of scores, and is written when Redis is well again.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import isfinite
from time import monotonic, perf_counter
from typing import Any, Final

from service.score_cache.breaker import FAILURES, CircuitBreaker, State
from service.score_cache.connections import MAX_CONNECTIONS, RedisServer, kind_of, words_of
from service.score_cache.contract import Watcher
from service.score_cache.keys import Key, namespace_prefix
from service.score_cache.values import pack, unpack

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 1.0
"""For what nobody waits for: connecting, writing, and a read whose caller has gone on without it."""
MAX_READS: Final = MAX_CONNECTIONS - 4
MAX_UNWRITTEN: Final = 16_384
WRITE_TOGETHER: Final = 512
RECANCEL_SECONDS: Final = 0.1
PROBE_SECONDS: Final = 60
COMPLAINT_SECONDS: Final = 60.0


class RedisTier:
    """A score cache in Redis.

    Args:
        budget: seconds that a caller waits for a read.
        ttl: seconds after which a score is forgotten; 0: never.
        pause: of the breakers, before their first probe.
    """

    def __init__(
        self, server: RedisServer, namespace: str, *, budget: float, ttl: int, watcher: Watcher, pause: float = 0.25
    ) -> None:
        self._server = server
        self._probe_key = namespace_prefix(namespace) + b"probe"
        self._budget = budget
        self._ttl = ttl
        self._watcher = watcher
        self._reads = CircuitBreaker("reading scores from Redis", self._probe_read, failures=FAILURES, pause=pause)
        self._writes = CircuitBreaker("writing scores to Redis", self._probe_write, failures=1, pause=pause)
        self._reading: set[asyncio.Task[list[object]]] = set()
        self._unwritten: dict[Key, float] = {}
        self._some_unwritten, self._all_written = asyncio.Event(), asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._complained: dict[str, float] = {}

    @property
    def states(self) -> dict[str, State]:
        """Of the breakers, by operation."""
        return {"read": self._reads.state, "write": self._writes.state}

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    async def start(self) -> None:
        """Tries Redis once, so that the first caller finds it connected. A sick one does not keep the service down."""
        await asyncio.gather(self._reads.start(GRACE_SECONDS), self._writes.start(GRACE_SECONDS))
        self._writer = asyncio.create_task(self._write_forever(), name="score cache writer")

    async def close(self) -> None:
        if self._writer is not None:
            if self._unwritten and self._writes.is_closed:
                self._all_written.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_SECONDS):
                        await self._all_written.wait()
            # Again and again, for the client may raise an error of its own in place of the cancellation.
            while not self._writer.done():
                self._writer.cancel()
                await asyncio.wait({self._writer}, timeout=RECANCEL_SECONDS)
        self._watcher.on_written(dropped=len(self._unwritten))
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
            self._watcher.on_lookup("redis", hits=0, misses=0, skipped=len(keys))
            return {}
        known = self._scores(keys, await self._read_in_time(keys))
        self._watcher.on_lookup("redis", hits=len(known), misses=len(keys) - len(known))
        return known

    def put(self, scores: Mapping[Key, float]) -> None:
        self._unwritten |= {key: raw for key, raw in scores.items() if isfinite(raw)}
        over = len(self._unwritten) - MAX_UNWRITTEN
        for key in list(islice(self._unwritten, max(0, over))):
            del self._unwritten[key]
        if over > 0:
            self._watcher.on_written(dropped=over)
        if self._unwritten:
            self._some_unwritten.set()

    async def _read_in_time(self, keys: Sequence[Key]) -> list[object]:
        """What lies under each key; nothing anywhere if that cannot be known in time.

        A read that is late goes on by itself, so that its connection is kept, and one that is still being made gets
        made.
        """
        started = perf_counter()
        task = asyncio.create_task(self._server.read(keys))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        task.add_done_callback(_look_at)
        await asyncio.wait({task}, timeout=self._budget)
        if task.cancelled():  # the cache closes
            return [None] * len(keys)
        self._watcher.on_operation("read", perf_counter() - started)
        failure = task.exception() if task.done() else self._too_slow()
        if failure is not None:
            self._failed("read", self._reads, failure)
            return [None] * len(keys)
        self._reads.succeeded()
        return task.result()

    def _scores(self, keys: Sequence[Key], values: Sequence[object]) -> dict[Key, float]:
        known = {}
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            if (raw := unpack(key, value)) is None:
                self._watcher.on_cache_error("read", "value")
                self._complain("read", "value", "what lies under a key is no score of ours; it will be overwritten")
                continue
            known[key] = raw
        return known

    async def _write_forever(self) -> None:
        while True:
            await self._writes.closed()
            await self._some_unwritten.wait()
            batch = dict(islice(self._unwritten.items(), WRITE_TOGETHER))
            started = perf_counter()
            try:
                await self._write({key: pack(key, raw) for key, raw in batch.items()}, self._ttl)
            except Exception as error:  # noqa: BLE001  (whatever a sick server makes the client raise)
                self._failed("write", self._writes, error)
                continue
            self._watcher.on_operation("write", perf_counter() - started)
            self._watcher.on_written(stored=len(batch))
            for key in batch:
                self._unwritten.pop(key, None)
            if not self._unwritten:
                self._some_unwritten.clear()
                self._all_written.set()

    async def _write(self, values: Mapping[Key, bytes], ttl: int) -> None:
        async with asyncio.timeout(GRACE_SECONDS):
            await self._server.write(values, ttl)

    async def _probe_read(self) -> None:
        """Twice: the first read may have to connect, the second is timed as a caller's is."""
        with self._counting("read"):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._server.read([self._probe_key])
                started = perf_counter()
                await self._server.read([self._probe_key])
            if perf_counter() - started > self._budget:
                raise self._too_slow()

    async def _probe_write(self) -> None:
        with self._counting("write"):
            await self._write({self._probe_key: b"well"}, PROBE_SECONDS)

    @contextmanager
    def _counting(self, operation: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._watcher.on_cache_error(operation, kind_of(error))
            raise RuntimeError(words_of(error)) from error

    def _too_slow(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._budget * 1000:.0f} ms")

    def _failed(self, operation: str, breaker: CircuitBreaker, error: BaseException) -> None:
        self._watcher.on_cache_error(operation, kind_of(error))
        self._complain(operation, kind_of(error), words_of(error))
        breaker.failed()

    def _complain(self, operation: str, kind: str, what: str) -> None:
        """One line for each kind of trouble, and not again within a minute: the metrics count."""
        now = monotonic()
        if now - self._complained.get(operation + kind, -COMPLAINT_SECONDS) >= COMPLAINT_SECONDS:
            self._complained[operation + kind] = now
            logger.warning("a %s of the score cache failed (%s): %s", operation, kind, what)


def _look_at(task: asyncio.Task[Any]) -> None:
    """A late failure that nobody waits for is not a surprise."""
    if not task.cancelled():
        task.exception()
