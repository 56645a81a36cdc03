"""An observer for models whose reports do not matter."""

from collections.abc import Sequence

from agentprm.types import StepScore
from service.queue.work import Batch
from service.scoring.results import Timings


class NullObserver:
    """Ignores every report."""

    def on_batch(self, batch: Batch) -> None: ...

    def on_invalid(self, scores: int) -> None: ...

    def on_cached(self, tokens: int) -> None: ...

    def on_answer(self, scores: Sequence[StepScore], timings: Timings) -> None: ...

    def on_item_errors(self, codes: Sequence[str]) -> None: ...

    def on_warm_up(self, seconds: float) -> None: ...
