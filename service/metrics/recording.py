"""Recordings: lines that were written, dropped or could not be written."""

from service.metrics.families import Families


class RecordingMetrics:
    """Counts what the recorder tells, from its own thread."""

    def __init__(self, families: Families) -> None:
        self._lines = families.counter("agentprm_recorded_lines", "Lines of rollout files written.", ["kind"])
        self._dropped = families.counter(
            "agentprm_recordings_dropped", "Scored trajectories that were not recorded: too much waited.", []
        )
        self._failures = families.counter("agentprm_recording_failures", "Writes that failed; tried again.", [])
        for kind in ("trajectory", "outcome"):
            self._lines.labels(kind)

    def on_written(self, trajectories: int, outcomes: int) -> None:
        self._lines.labels("trajectory").inc(trajectories)
        self._lines.labels("outcome").inc(outcomes)

    def on_dropped(self) -> None:
        self._dropped.inc()

    def on_failure(self) -> None:
        self._failures.inc()
