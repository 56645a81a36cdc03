"""Changes which models are served while requests run.

The registry keeps a list of wanted references, the default first. Every change takes the same steps: resolve the
references in the store, load what is missing, swap the names in one step, unload the other models. If a step fails,
nothing has changed.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any

from agentprm.errors import AgentPRMError, InternalError, InvalidRequest, ModelNotFound
from model_store.errors import CheckpointError, CheckpointNotFound
from model_store.format.store import Checkpoint, Store
from service.engine.contract import DeviceLost
from service.models.catalog import Models
from service.models.load import Loaded
from service.models.served import ServedModel

logger = logging.getLogger(__name__)


class Registry:
    """Loads and unloads models, one change at a time. A request finishes on the model it began with.

    Args:
        store: resolves references.
        wanted: aliases, names or ``name@version``; the first is the default.
        models: the models that answer now.
        load: loads a checkpoint into memory; called on a thread.
        assemble: turns a model in memory into one that can be started.
        on_unloaded: called with the reference of each model that was unloaded.
        release: gives back the memory of unloaded models.
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
        self._unloading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Warms up the models that answer. One that fails is put down as failed, and the others answer.

        Raises:
            InternalError: the default model fails.
        """
        default, *others = self._models.all
        await default.start()
        failed = {}
        for model in others:
            try:
                await model.start()
            except InternalError as error:
                logger.error("%s", error)  # noqa: TRY400  (one sentence says it)
                failed[model.reference] = str(error)
                self._unload_later([model])
        self._models.fail(failed)

    async def load(self, reference: str) -> None:
        """Serves one more model.

        Raises:
            ModelNotFound: the store has nothing of that name.
            InvalidRequest: the checkpoint cannot be loaded.
            InternalError: a worker has ended while it loaded the checkpoint, or the warm-up fails.
        """
        await self._change(self._load_one_more(reference))

    async def unload(self, reference: str) -> None:
        """Unloads a model, by any of its names.

        Raises:
            ModelNotFound: no loaded model answers to it.
            InvalidRequest: it is the default model.
        """
        await self._change(self._unload(reference))

    async def set_alias(self, alias: str, reference: str) -> None:
        """Points an alias of the store to a checkpoint, once that has been loaded, and serves it.

        Raises:
            ModelNotFound: the store has nothing of that name.
            InvalidRequest: the checkpoint cannot be loaded, or the store cannot be written.
        """
        await self._change(self._set_alias(alias, reference))

    async def reload(self) -> None:
        """Follows the store: aliases that point elsewhere, and newer versions of bare names.

        Models that failed to start are tried again; if they fail again, the others follow all the same.

        Raises:
            ModelNotFound: the store no longer has a checkpoint for a wanted name.
            InvalidRequest: a checkpoint cannot be loaded.
        """
        await self._change(self._reload())

    async def close(self) -> None:
        """Waits for running changes, then closes every model, which answers its admitted requests."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        for model in self._models.all:
            await model.close()
        await asyncio.gather(*self._unloading)

    async def _change(self, change: Coroutine[Any, Any, None]) -> None:
        """Runs a change to its end even if its caller is cancelled: half a change would confuse the next one."""
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
        except DeviceLost as error:
            raise InternalError(str(error)) from error
        except OSError as error:
            raise InvalidRequest(f"the model store cannot be used: {error.strerror}") from error
        finally:
            change.close()  # if its turn never came

    async def _load_one_more(self, reference: str) -> None:
        await self._follow([*self._wanted, reference], required=reference)

    async def _unload(self, reference: str) -> None:
        unloaded = self._models.reference(reference)
        left = [wanted for wanted in self._wanted if self._store.reference(wanted) != unloaded]
        # In the store the default's name may stand for another version by now.
        if unloaded == self._models.find(None).reference or self._wanted[0] not in left:
            raise InvalidRequest(f"{unloaded} is the default model: point its alias elsewhere instead")
        await self._follow(left)

    async def _set_alias(self, alias: str, reference: str) -> None:
        before = self._wanted
        await self._follow([*before, reference], required=reference)
        try:
            await asyncio.to_thread(self._store.set_alias, alias, reference)
        except BaseException:
            await self._follow(before)
            raise
        await self._follow([*before, alias])

    async def _reload(self) -> None:
        await self._follow(self._wanted, retry=True)

    async def _follow(self, wanted: Sequence[str], *, required: str | None = None, retry: bool = False) -> None:
        """Serves the wanted models. Those that failed to start stay down, unless one is required or all are retried."""
        wanted = list(dict.fromkeys(wanted))
        references = list(dict.fromkeys(map(self._store.reference, wanted)))
        aliases = self._store.aliases()
        here = {model.reference: model for model in self._models.all}
        failed = {reference: why for reference, why in self._models.failed.items() if reference in references}
        must = {*references} - {*failed} | ({self._store.reference(required)} if required else set())
        tried = [reference for reference in references if reference not in here and (retry or reference in must)]
        new, failed_again = await self._load_all(tried, must)
        here |= {model.reference: model for model in new}
        failed = {reference: why for reference, why in failed.items() if reference not in here} | failed_again
        self._wanted = wanted
        served = [here[reference] for reference in references if reference in here]
        self._unload_later(self._models.swap(served, aliases, failed))

    async def _load_all(
        self, references: Sequence[str], must: Collection[str]
    ) -> tuple[list[ServedModel], dict[str, str]]:
        """Loads and starts models; also returns why others failed.

        Raises an error of one that must start, and then none of them stays loaded.
        """
        new: list[ServedModel] = []
        failed: dict[str, str] = {}
        try:
            for reference in references:
                try:
                    new.append(await self._load_and_start(reference))
                except AgentPRMError as error:
                    if reference in must:
                        raise
                    logger.error("%s stays down: %s", reference, error)  # noqa: TRY400  (one sentence says it)
                    failed[reference] = str(error)
        except BaseException:
            self._unload_later(new)
            raise
        return new, failed

    async def _load_and_start(self, reference: str) -> ServedModel:
        checkpoint = await asyncio.to_thread(self._store.resolve, reference)
        model = self._assemble(await asyncio.to_thread(self._load, checkpoint))
        try:
            await model.start()
        except BaseException:
            self._unload_later([model])
            raise
        logger.info("%s is loaded", reference)
        return model

    def _unload_later(self, models: Iterable[ServedModel]) -> None:
        for model in models:
            task = asyncio.create_task(self._unload_when_unused(model), name="unloading model")
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)

    async def _unload_when_unused(self, model: ServedModel) -> None:
        await model.unused()
        await model.close()
        reference = model.reference
        self._on_unloaded(reference)
        del model  # the last reference to it
        self._release()
        logger.info("%s is unloaded", reference)


async def reload_and_log(registry: Registry) -> None:
    """Reloads, and logs a failure instead of raising it, because no caller waits for a SIGHUP."""
    try:
        await registry.reload()
    except AgentPRMError as error:
        logger.error("the models in force stay: %s", error)  # noqa: TRY400  (one sentence says it)
