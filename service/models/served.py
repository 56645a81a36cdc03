"""One model that answers requests: its start and end, and the requests that hold it."""

from asyncio import Event
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from agentprm import wire
from agentprm.errors import InternalError, RequestError
from service.engine.contract import Workers
from service.queue.fair_queue import Priority
from service.scoring.observer import ModelObserver
from service.scoring.scorer import Scorer


class ServedModel:
    """One model that answers requests, and the leases that requests hold on it.

    Args:
        info: the model's entry in ``/models``.
        scorer: scores with the model.
        observer: receives the seconds of loading and warm-up.
        load_seconds: the time it took to load the checkpoint.
        workers: the processes that compute the model; None if it is this process or another server.
    """

    def __init__(
        self,
        info: wire.ModelInfo,
        scorer: Scorer,
        observer: ModelObserver,
        *,
        load_seconds: float,
        workers: Workers | None = None,
    ) -> None:
        self.info = info
        self.scorer = scorer
        self._source = scorer.source
        self._observer = observer
        self._load_seconds = load_seconds
        self._workers = workers
        self._leases = 0
        self._unused = Event()
        self._unused.set()

    @property
    def reference(self) -> str:
        return f"{self.info.name}@{self.info.version}"

    @property
    def identity(self) -> wire.ModelIdentity:
        return wire.ModelIdentity(name=self.info.name, version=self.info.version, digest=self.info.digest)

    @property
    def alive(self) -> bool:
        """False once only a new process can score with the model again."""
        return self._source.alive and not (self._workers is not None and self._workers.lost)

    @property
    def restarting(self) -> bool:
        """True while no worker runs, but one is being started again."""
        return self._workers is not None and not self._workers.running and not self._workers.lost

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while the model's queue takes no more from this caller at this priority."""
        self._source.refuse_if_full(caller, priority)

    async def start(self) -> None:
        """Warms up and begins to answer. Raises InternalError if the warm-up fails."""
        started = perf_counter()
        try:
            await self._source.start()
        except RequestError as error:
            raise InternalError(f"{self.reference} failed its warm-up: {error}", details=error.details) from error
        self._observer.on_warm_up(self._load_seconds + perf_counter() - started)

    @contextmanager
    def leased(self) -> Iterator["ServedModel"]:
        """Keeps the model open until the block ends, even if its name points to another model by then."""
        self._leases += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if not self._leases:
                self._unused.set()

    async def unused(self) -> None:
        """Returns once nobody holds a lease."""
        await self._unused.wait()

    async def close(self) -> None:
        """Refuses new requests and answers those that were admitted."""
        await self._source.close()
