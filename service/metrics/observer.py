"""Counts the reports of one model."""

from collections.abc import Sequence

from agentprm.types import StepScore
from service.metrics.engine import EngineMetrics
from service.metrics.process import ProcessMetrics
from service.metrics.scores import ScoreMetrics
from service.queue.work import Batch
from service.scoring.results import Timings


class CountingObserver:
    """Counts what one model reports. Implements ``ModelObserver``; the model's label sets must exist already."""

    def __init__(self, model: str, engine: EngineMetrics, scores: ScoreMetrics, process: ProcessMetrics) -> None:
        self._model = model
        self._engine = engine
        self._scores = scores
        self._process = process
        self._stages = scores.stages(model)

    def on_batch(self, batch: Batch) -> None:
        self._engine.count_batch(self._model, batch)

    def on_invalid(self, scores: int) -> None:
        self._scores.count_invalid(self._model, scores)

    def on_cached(self, tokens: int) -> None:
        self._engine.count_cached(self._model, tokens)

    def on_answer(self, scores: Sequence[StepScore], timings: Timings) -> None:
        self._scores.count_scores(self._model, scores)
        for stage, seconds in zip(self._stages, timings, strict=True):
            stage.observe(seconds)

    def on_item_errors(self, codes: Sequence[str]) -> None:
        self._scores.count_item_errors(self._model, codes)

    def on_warm_up(self, seconds: float) -> None:
        self._process.set_load_seconds(self._model, seconds)
