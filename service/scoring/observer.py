"""The interface of a model's reports about itself. ``service.metrics`` counts them."""

from collections.abc import Sequence
from typing import Protocol

from agentprm.types import StepScore
from service.queue.observer import BatchObserver
from service.scoring.results import Timings


class ModelObserver(BatchObserver, Protocol):
    """Receives what one model does, from its batches to its answers. Called on the event loop."""

    def on_cached(self, tokens: int) -> None:
        """Called per answered request with its tokens whose scores were known and cost no forward."""
        ...

    def on_answer(self, scores: Sequence[StepScore], timings: Timings) -> None:
        """Called per answered request with all its scores and where its time went."""
        ...

    def on_item_errors(self, codes: Sequence[str]) -> None:
        """Called per answered request with the codes of the errors that are results of its items."""
        ...

    def on_warm_up(self, seconds: float) -> None:
        """Called once, with the seconds from the checkpoint on disk to the end of the warm-up."""
        ...
