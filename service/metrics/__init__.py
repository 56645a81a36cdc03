"""Every metric of the service, one file per subject. The only package that knows Prometheus.

All label sets exist from the start, so that a counter's first increment is seen as one. Those of a model are removed
when it is unloaded.
"""

from collections.abc import Sequence

from service.metrics.connections import ConnectionMetrics
from service.metrics.engine import EngineMetrics
from service.metrics.families import Families
from service.metrics.observer import CountingObserver
from service.metrics.process import ProcessMetrics
from service.metrics.recording import RecordingMetrics
from service.metrics.requests import RequestMetrics
from service.metrics.score_cache import ScoreCacheMetrics
from service.metrics.scores import ScoreMetrics
from service.scoring.observer import ModelObserver


class Metrics:
    """All metrics of one application, on a registry of its own. Several applications can live in one process.

    Args:
        routes: every route of the application.
        scores: the routes that a model answers.
    """

    def __init__(self, routes: Sequence[str] = (), scores: Sequence[str] = ()) -> None:
        self._families = Families()
        self.connections = ConnectionMetrics(self._families)
        self.requests = RequestMetrics(self._families, routes, scores)
        self.engine = EngineMetrics(self._families)
        self.scores = ScoreMetrics(self._families)
        self.score_cache = ScoreCacheMetrics(self._families)
        self.recording = RecordingMetrics(self._families)
        self.process = ProcessMetrics(self._families)

    def exposition(self) -> bytes:
        return self._families.exposition()

    def add_model(self, model: str) -> None:
        """Creates the label sets of a model. Call it before anything is counted for the model."""
        self._families.add_model(model)
        for subject in (self.requests, self.engine, self.scores, self.process):
            subject.add_model(model)

    def observer(self, model: str) -> ModelObserver:
        """Counts what the model reports. Its label sets must exist: ``add_model`` comes first."""
        return CountingObserver(model, self.engine, self.scores, self.process)

    def remove_model(self, model: str) -> None:
        """Removes a model's series, unless it has been added again meanwhile."""
        self._families.remove_model(model)
        if model not in self._families.models:
            self.process.remove_model(model)
