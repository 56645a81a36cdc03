"""Which models are served, changed while requests run.

There is a list of wanted references, the default first. Every change is the same act: look up what each stands for in
the store now, load what is missing, swap names in one step, let go of what nobody wants. If anything fails, nothing has
changed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from agentprm.errors import AgentPRMError, InvalidRequest, ModelNotFound
from model_store.errors import CheckpointError, CheckpointNotFound
from model_store.format.store import Checkpoint, Store
from service.models.catalog import Models
from service.models.load import Loaded
from service.models.served import ServedModel

logger = logging.getLogger(__name__)


class Registry:
    """Loads and lets go of models, one change at a time. A request finishes on the model it began with.

    Args:
        store: where references are looked up.
        wanted: aliases, names or ``name@version``; the first is the default.
        models: what answers now.
        load: from a checkpoint to a model in memory; called on a thread.
        assemble: from there to a model that can be started.
        on_unloaded: called with the reference of each model that was unloaded.
        release: gives back the memory of those that have left.
    """

    def __init__(
        self,
        store: Store,
        wanted: Sequence[str],
        models: Models,
        *,
        load: Callable[[Checkpoint], Loaded],
        assemble: Callable[[Loaded], ServedModel],
        on_unloaded: Callable[[str], None],
        release: Callable[[], None],
    ) -> None:
        self._store = store
        self._wanted = list(wanted)
        self._models = models
        self._load = load
        self._assemble = assemble
        self._on_unloaded = on_unloaded
        self._release = release
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def load(self, reference: str) -> None:
        """Serves one more model.

        Raises:
            ModelNotFound: the store has nothing of that name.
            InvalidRequest: the checkpoint cannot be loaded.
        """
        await self._change(self._load_one_more(reference))

    async def unload(self, reference: str) -> None:
        """Lets go of a model, whatever it was asked for as.

        Raises:
            ModelNotFound: no loaded model answers to it.
            InvalidRequest: it is the default model.
        """
        await self._change(self._unload(reference))

    async def point(self, alias: str, reference: str) -> None:
        """Points an alias of the store to a checkpoint, once that is known to load, and serves it.

        Raises:
            ModelNotFound: the store has nothing of that name.
            InvalidRequest: the checkpoint cannot be loaded, or the store cannot be written.
        """
        await self._change(self._point(alias, reference))

    async def reload(self) -> None:
        """Follows what the store's aliases and newest versions have become.

        Raises:
            ModelNotFound: what a wanted name stood for is gone from the store.
            InvalidRequest: a checkpoint cannot be loaded.
        """
        await self._change(self._reload())

    async def close(self) -> None:
        """Ends what is changing, then answers what was admitted, by whichever model."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        for model in self._models.all:
            await model.close()
        await asyncio.gather(*self._leaving)

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        """Runs to its end though its caller may leave: half a change would not be known to the next one."""
        task = asyncio.create_task(self._in_turn(change), name="change of models")
        self._changes.add(task)
        task.add_done_callback(self._changed)
        await asyncio.shield(task)

    def _changed(self, task: asyncio.Task[None]) -> None:
        self._changes.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("a change of models failed: %s", error)

    async def _in_turn(self, change: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._changing:
                await change
        except CheckpointNotFound as error:
            raise ModelNotFound(str(error)) from error
        except CheckpointError as error:
            raise InvalidRequest(str(error)) from error
        except OSError as error:
            raise InvalidRequest(f"the model store cannot be used: {error.strerror}") from error
        finally:
            change.close()  # if its turn never came

    async def _load_one_more(self, reference: str) -> None:
        await self._follow([*self._wanted, reference])

    async def _unload(self, reference: str) -> None:
        model = self._models.find(reference)
        left = [one for one in self._wanted if self._store.reference(one) != model.reference]
        # What the default's name stands for now, it may not stand for in the store any more.
        if model is self._models.find(None) or self._wanted[0] not in left:
            raise InvalidRequest(f"{model.reference} is the default model: point its alias elsewhere instead")
        await self._follow(left)

    async def _point(self, alias: str, reference: str) -> None:
        before = self._wanted
        await self._follow([*before, reference])
        try:
            await asyncio.to_thread(self._store.set_alias, alias, reference)
        except BaseException:
            await self._follow(before)
            raise
        await self._follow([*before, alias])

    async def _reload(self) -> None:
        await self._follow(self._wanted)

    async def _follow(self, wanted: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(wanted))
        references = list(dict.fromkeys(map(self._store.reference, wanted)))
        aliases = self._store.aliases()
        here = {model.reference: model for model in self._models.all}
        new: list[ServedModel] = []
        try:
            for reference in references:
                if reference not in here:
                    new.append(await self._start(reference))  # noqa: PERF401  (those before a failure are let go)
        except BaseException:
            self._let_go(new)
            raise
        here |= {model.reference: model for model in new}
        self._wanted = wanted
        self._let_go(self._models.swap([here[reference] for reference in references], aliases))

    async def _start(self, reference: str) -> ServedModel:
        checkpoint = await asyncio.to_thread(self._store.resolve, reference)
        model = self._assemble(await asyncio.to_thread(self._load, checkpoint))
        try:
            await model.start()
        except BaseException:
            self._let_go([model])
            raise
        logger.info("%s is loaded", reference)
        return model

    def _let_go(self, models: Iterable[ServedModel]) -> None:
        for model in models:
            task = asyncio.create_task(self._leave(model), name="leaving model")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, model: ServedModel) -> None:
        await model.unused()
        await model.close()
        reference = model.reference
        self._on_unloaded(reference)
        del model  # the last one who knew it
        self._release()
        logger.info("%s is unloaded", reference)


async def reload_and_log(registry: Registry) -> None:
    """For a caller that nobody answers: what stays in force after a failure is logged."""
    try:
        await registry.reload()
    except AgentPRMError as error:
        logger.error("the models in force stay: %s", error)  # noqa: TRY400  (one sentence says it)
