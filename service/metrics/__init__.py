"""Every metric of the service, a file a subject. The only package that knows Prometheus.

All label sets exist from the start, so that a counter's first increment is seen as an increment, and those of a model
leave with it.
"""

from collections.abc import Sequence

from service.metrics.engine import EngineMetrics
from service.metrics.families import Families
from service.metrics.process import ProcessMetrics
from service.metrics.requests import RequestMetrics
from service.metrics.score_cache import ScoreCacheMetrics
from service.metrics.scores import ScoreMetrics


class Metrics:
    """One registry per application; nothing global, so several applications can live in one process.

    Args:
        routes: all that there are.
        scores: those that a model answers.
    """

    def __init__(self, routes: Sequence[str] = (), scores: Sequence[str] = ()) -> None:
        self._families = Families()
        self.requests = RequestMetrics(self._families, routes, scores)
        self.engine = EngineMetrics(self._families)
        self.scores = ScoreMetrics(self._families)
        self.score_cache = ScoreCacheMetrics(self._families)
        self.process = ProcessMetrics(self._families)

    def exposition(self) -> bytes:
        return self._families.exposition()

    def add_model(self, model: str) -> None:
        """Creates the label sets of a model, before anything is counted for it."""
        self._families.add_model(model)
        for subject in (self.requests, self.engine, self.scores, self.process):
            subject.add_model(model)

    def remove_model(self, model: str) -> None:
        """The end of a model's series, unless it was added again: nothing is counted for it any more."""
        self._families.remove_model(model)
        if model not in self._families.models:
            self.process.remove_model(model)
