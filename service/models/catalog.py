"""The models that answer, by every name they answer to, and those that failed to start.

A request holds a lease on the model it began with, so a model that is swapped out closes only when no request holds it.
"""

from collections.abc import Mapping, Sequence

from agentprm.errors import ModelNotFound, NotReady, Overloaded
from model_store.format.store import natural_order
from service.models.served import ServedModel
from service.queue.fair_queue import Priority


class Models:
    """Models by every name they answer to: ``name@version``, ``name`` (the newest version here), aliases."""

    def __init__(self) -> None:
        self.all: Sequence[ServedModel] = ()
        """The models that answer, the default first."""
        self.failed: Mapping[str, str] = {}
        """Reference of each wanted model that could not be loaded or warmed up -> a sentence that says why."""
        self._aliases: Mapping[str, str] = {}
        self._served: dict[str, ServedModel] = {}
        self._references: dict[str, str] = {}

    def swap(
        self, models: Sequence[ServedModel], aliases: Mapping[str, str], failed: Mapping[str, str] | None = None
    ) -> list[ServedModel]:
        """Replaces the models that answer, and returns those that no longer do.

        Args:
            models: the new models, the default first.
            aliases: alias -> ``name@version``; aliases of other models are left out.
            failed: reference of each model that failed to start -> why.
        """
        removed = [model for model in self.all if model not in models]
        self.failed = dict(failed or {})
        self._aliases = aliases
        self._served = {model.reference: model for model in models}
        self._references = _names([*self._served, *self.failed], aliases)
        for model in models:
            mine = sorted(alias for alias, target in aliases.items() if target == model.reference)
            model.info = model.info.model_copy(update={"aliases": mine, "default": model is models[0]})
        self.all = tuple(models)
        return removed

    def fail(self, failed: Mapping[str, str]) -> None:
        """Takes models that failed to start from those that answer: reference -> a sentence that says why."""
        kept = [model for model in self.all if model.reference not in failed]
        self.swap(kept, self._aliases, {**self.failed, **failed})

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while every model's queue is full for this caller and priority.

        The body, which names the model, is not read yet.
        """
        for model in self.all:
            try:
                model.refuse_if_full(caller, priority)
            except Overloaded as error:
                full = error
            else:
                return
        raise full

    def find(self, reference: str | None) -> ServedModel:
        """Returns the model that answers to a name; for None the default one.

        Raises:
            ModelNotFound: no loaded model answers to the name.
            NotReady: the model of that name failed to start.
        """
        if reference is None:
            return self.all[0]
        named = self.reference(reference)
        if named in self.failed:
            raise NotReady(f"{named} is not served: {self.failed[named]}")
        return self._served[named]

    def reference(self, name: str) -> str:
        """Returns ``name@version`` of the model that a name stands for, also of one that failed to start.

        Raises:
            ModelNotFound: there is no such model.
        """
        if name not in self._references:
            loaded = sorted(self._references)
            raise ModelNotFound(f"no such model is loaded; there are: {', '.join(loaded)}", details={"loaded": loaded})
        return self._references[name]


def _names(references: Sequence[str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Returns the reference of every name. The newest version has the bare name, and an alias wins over it."""
    oldest_first = sorted(references, key=lambda reference: natural_order(reference.split("@")[1]))
    bare = {reference.split("@")[0]: reference for reference in oldest_first}
    return (
        bare
        | {reference: reference for reference in references}
        | {alias: target for alias, target in aliases.items() if target in references}
    )
