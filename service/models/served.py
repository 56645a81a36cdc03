"""One model: its scorer, its leases."""

from asyncio import Event
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Protocol

from agentprm import wire
from agentprm.errors import InternalError, RequestError
from agentprm.types import State, Trajectory
from service.queue.terms import Terms
from service.scoring.results import Rankings, Scores


class Scorer(Protocol):
    """One model's scores, computed here or by a judge elsewhere."""

    @property
    def alive(self) -> bool:
        """False where only a new process can score again."""
        ...

    def refuse_if_full(self) -> None:
        """Raises Overloaded while its queue takes no more."""
        ...

    async def start(self) -> None:
        """Begins to answer, once something like a first score has come through. Raises RequestError."""
        ...

    async def close(self) -> None:
        """Answers what was admitted, refuses what is new."""
        ...

    async def score_steps(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """The last step of each."""
        ...

    async def score_trajectories(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """Every step of each."""
        ...

    async def rank(self, states: Sequence[State], candidates: Sequence[Sequence[str]], terms: Terms) -> Rankings:
        """The candidates of each state, best promise first."""
        ...


class ServedModel:
    """A model that answers: what scores with it, and who holds it.

    Args:
        info: what ``/models`` tells.
        on_warm: hears how many seconds the first forward took.
    """

    def __init__(
        self,
        info: wire.ModelInfo,
        scorer: Scorer,
        on_warm: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.info = info
        self.scorer = scorer
        self._on_warm = on_warm
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
        return self.scorer.alive

    def refuse_if_full(self) -> None:
        """Raises Overloaded while its queue takes no more."""
        self.scorer.refuse_if_full()

    async def start(self) -> None:
        """Begins to answer. Raises InternalError where its warm-up fails."""
        started = perf_counter()
        try:
            await self.scorer.start()
        except RequestError as error:
            raise InternalError(f"{self.reference} failed its warm-up: {error}", details=error.details) from error
        self._on_warm(perf_counter() - started)

    @contextmanager
    def leased(self) -> Iterator["ServedModel"]:
        """Keeps the model until the block ends, whatever answers to its name by then."""
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
        """Answers what was admitted, refuses what is new."""
        await self.scorer.close()
