"""The answered scores of each model, where their time went, and the scores that were refused."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Histogram

from agentprm.errors import InvalidRequest, TooLong, UpstreamFailed
from agentprm.types import StepScore
from service.metrics.buckets import PROGRESS, PROMISE, SECONDS
from service.metrics.families import MODEL, Families
from service.scoring.results import Timings

ITEM_ERROR_CODES: Final = (InvalidRequest.code, TooLong.code, UpstreamFailed.code)


class ScoreMetrics:
    def __init__(self, families: Families) -> None:
        self._promise = families.distribution("agentprm_promise", "Promises answered.", PROMISE)
        self._progress = families.distribution("agentprm_progress", "Progress answered.", PROGRESS)
        self._invalid = families.counter(
            "agentprm_invalid_scores", "Scores that were NaN or infinite; their requests fail.", [MODEL]
        )
        self._item_errors = families.counter(
            "agentprm_item_errors",
            "Items that got an error as their result, in requests with on_error item.",
            [MODEL, "code"],
        )
        self._stages = families.histogram(
            "agentprm_stage_duration_seconds",
            "Time of answered requests by stage, as in their server-timing header.",
            [MODEL, "stage"],
            buckets=SECONDS,
        )

    def add_model(self, model: str) -> None:
        self._promise.add_model(model)
        self._progress.add_model(model)
        self._invalid.labels(model)
        for code in ITEM_ERROR_CODES:
            self._item_errors.labels(model, code)
        for stage in Timings._fields:
            self._stages.labels(model, stage)

    def stages(self, model: str) -> list[Histogram]:
        """Series of a model's stages, in the order of ``Timings``. Look them up once: that costs more than counting."""
        return [self._stages.labels(model, stage) for stage in Timings._fields]

    def count_scores(self, model: str, scores: Sequence[StepScore]) -> None:
        self._promise.observe(model, [score.promise for score in scores])
        self._progress.observe(model, [score.progress for score in scores if score.progress is not None])

    def count_item_errors(self, model: str, codes: Sequence[str]) -> None:
        for code in codes:
            self._item_errors.labels(model, code).inc()

    def count_invalid(self, model: str, scores: int) -> None:
        self._invalid.labels(model).inc(scores)
