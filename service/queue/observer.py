"""The reports of a queue about its batches. Knows no metrics library."""

from typing import Protocol

from service.queue.work import Batch


class BatchObserver(Protocol):
    """Receives what happens to the batches of one model. Called on the event loop."""

    def on_batch(self, batch: Batch) -> None:
        """Called after each forward; for a judge, after each call."""
        ...

    def on_invalid(self, scores: int) -> None:
        """Called with the number of scores of a sequence that were not finite and were refused."""
        ...
