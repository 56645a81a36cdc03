"""The models that answer: under which names, and until when.

A request holds a lease on the model it began with, so a model that is swapped out leaves only when nobody is with it.
"""

from asyncio import Event
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from agentprm import wire
from agentprm.errors import InternalError, ModelNotFound, Overloaded, RequestError
from model_store.store import natural_order
from service.batcher import Batcher
from service.scorer import Scorer

WARM_UP_TOKENS: Final = 16


class ServedModel:
    """A model in memory, with all that scores with it.

    Args:
        info: what ``/models`` tells.
        on_warm: hears how many seconds the first forward took.
    """

    def __init__(
        self,
        info: wire.ModelInfo,
        scorer: Scorer,
        batcher: Batcher,
        on_warm: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.info = info
        self.scorer = scorer
        self._batcher = batcher
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
        return self._batcher.alive

    def refuse_if_full(self) -> None:
        """Raises Overloaded while its queue takes no more."""
        self._batcher.refuse_if_full()

    async def start(self) -> None:
        """Begins to answer, and sends one forward through, so that the first caller does not pay for it.

        Raises:
            InternalError: that failed.
        """
        started = perf_counter()
        self._batcher.start()
        warm_up = self._batcher.measure([[0] * WARM_UP_TOKENS], [[WARM_UP_TOKENS - 1]], ["warm-up"])
        try:
            await self._batcher.submit(warm_up)
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
        await self._batcher.close()


class Models:
    """Models by every name they answer to: ``name@version``, ``name`` (the newest version here), aliases."""

    def __init__(self) -> None:
        self.all: Sequence[ServedModel] = ()
        """The default first."""
        self._named: dict[str, ServedModel] = {}

    def swap(self, models: Sequence[ServedModel], aliases: Mapping[str, str]) -> list[ServedModel]:
        """From now on these answer, the first by default; returns those that no longer do.

        Args:
            models: the default first.
            aliases: alias -> ``name@version``; those of models that are not here are left out.
        """
        gone = [model for model in self.all if model not in models]
        by_reference = {model.reference: model for model in models}
        known = {alias: target for alias, target in aliases.items() if target in by_reference}
        for model in models:
            mine = sorted(alias for alias, target in known.items() if target == model.reference)
            model.info = model.info.model_copy(update={"aliases": mine, "default": model is models[0]})
        oldest_first = sorted(models, key=lambda model: natural_order(model.info.version))
        self._named = {model.info.name: model for model in oldest_first} | by_reference
        self._named |= {alias: by_reference[target] for alias, target in known.items()}
        self.all = tuple(models)
        return gone

    def refuse_if_full(self) -> None:
        """Raises Overloaded while no model's queue takes more: which one is asked stands in the body."""
        for model in self.all:
            try:
                model.refuse_if_full()
            except Overloaded as error:
                full = error
            else:
                return
        raise full

    def find(self, reference: str | None) -> ServedModel:
        """The model of that name, the default one for None.

        Raises:
            ModelNotFound: no loaded model answers to it.
        """
        if reference is None:
            return self.all[0]
        if reference not in self._named:
            loaded = sorted(self._named)
            raise ModelNotFound(f"no such model is loaded; there are: {', '.join(loaded)}", details={"loaded": loaded})
        return self._named[reference]
