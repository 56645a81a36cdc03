"""What was answered: the scores themselves, where their time went, and those that were refused; by model."""

from collections.abc import Callable, Sequence

from agentprm.types import StepScore
from service.metrics.buckets import PROGRESS, PROMISE, SECONDS
from service.metrics.families import MODEL, Families
from service.scoring.results import Timings


class ScoreMetrics:
    def __init__(self, families: Families) -> None:
        self._promise = families.distribution("agentprm_promise", "Promises answered.", PROMISE)
        self._progress = families.distribution("agentprm_progress", "Progress answered.", PROGRESS)
        self._invalid = families.counter(
            "agentprm_invalid_scores", "Scores that were no finite number and were refused.", [MODEL]
        )
        self._stages = families.histogram(
            "agentprm_stage_duration_seconds",
            "Where the time of answered requests went, as their server-timing says.",
            [MODEL, "stage"],
            buckets=SECONDS,
        )

    def add_model(self, model: str) -> None:
        self._promise.add_model(model)
        self._progress.add_model(model)
        self._invalid.labels(model)
        for stage in Timings._fields:
            self._stages.labels(model, stage)

    def answers_of(self, model: str) -> Callable[[Sequence[StepScore], Timings], None]:
        """Counts an answer of this model; its series are looked up once, which would be a third of the cost."""
        stages = [self._stages.labels(model, stage) for stage in Timings._fields]

        def on_answer(scores: Sequence[StepScore], timings: Timings) -> None:
            self._promise.observe(model, [score.promise for score in scores])
            self._progress.observe(model, [score.progress for score in scores if score.progress is not None])
            for stage, seconds in zip(stages, timings, strict=True):
                stage.observe(seconds)

        return on_answer

    def on_invalid(self, model: str, scores: int) -> None:
        self._invalid.labels(model).inc(scores)
