"""The models that answer, by every name they answer to.

A request holds a lease on the model it began with, so a model that is swapped out closes only when no request holds it.
"""

from collections.abc import Mapping, Sequence

from agentprm.errors import ModelNotFound, Overloaded
from model_store.format.store import natural_order
from service.models.served import ServedModel
from service.queue.fair_queue import Priority


class Models:
    """Models by every name they answer to: ``name@version``, ``name`` (the newest version here), aliases."""

    def __init__(self) -> None:
        self.all: Sequence[ServedModel] = ()
        """The default first."""
        self._named: dict[str, ServedModel] = {}

    def swap(self, models: Sequence[ServedModel], aliases: Mapping[str, str]) -> list[ServedModel]:
        """Replaces the models that answer, and returns those that no longer do.

        Args:
            models: the new models, the default first.
            aliases: alias -> ``name@version``; aliases of other models are left out.
        """
        removed = [model for model in self.all if model not in models]
        by_reference = {model.reference: model for model in models}
        known = {alias: target for alias, target in aliases.items() if target in by_reference}
        for model in models:
            mine = sorted(alias for alias, target in known.items() if target == model.reference)
            model.info = model.info.model_copy(update={"aliases": mine, "default": model is models[0]})
        oldest_first = sorted(models, key=lambda model: natural_order(model.info.version))
        self._named = {model.info.name: model for model in oldest_first} | by_reference
        self._named |= {alias: by_reference[target] for alias, target in known.items()}
        self.all = tuple(models)
        return removed

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
        """
        if reference is None:
            return self.all[0]
        if reference not in self._named:
            loaded = sorted(self._named)
            raise ModelNotFound(f"no such model is loaded; there are: {', '.join(loaded)}", details={"loaded": loaded})
        return self._named[reference]
