"""Measurements of the loops of an overload run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tests.stress.generator import Sample


@dataclass(frozen=True, slots=True)
class Phase:
    """Measurements of one loop."""

    seconds: float
    lasted: float
    """Seconds until the last answer."""
    samples: Sequence[Sample]
    generator_cpu: float
    server_cpu: float
    computed: float
    forward: float
    """Seconds of forward for the ``computed`` tokens."""
    resident_mb: float


@dataclass(frozen=True, slots=True)
class Phases:
    """All phases of one kind; times of a sample count from the start of its own phase."""

    each: Sequence[Phase]

    @property
    def samples(self) -> list[Sample]:
        return [sample for phase in self.each for sample in phase.samples]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(sample.status for sample in self.samples)

    @property
    def pace(self) -> float:
        """Requests per second that were scored while requests came."""
        scored = [
            sample
            for phase in self.each
            for sample in phase.samples
            if sample.status == 200 and sample.ended <= phase.seconds
        ]
        return len(scored) / self._sum("seconds")

    @property
    def offered(self) -> float:
        return len(self.samples) / self._sum("seconds")

    @property
    def drain(self) -> float:
        """Tokens per second of forward."""
        return self._sum("computed") / self._sum("forward")

    @property
    def server_cores(self) -> float:
        return self._sum("server_cpu") / self._sum("lasted")

    @property
    def generator_cores(self) -> float:
        return self._sum("generator_cpu") / self._sum("lasted")

    @property
    def resident_mb(self) -> float:
        return self.each[-1].resident_mb

    def latency(self, share: float) -> float:
        """Returns a percentile of the scored requests' latency, in seconds from sending."""
        return percentile([sample.ended - sample.sent for sample in self.samples if sample.status == 200], share)

    def lateness(self, share: float) -> float:
        return percentile([sample.late for sample in self.samples], share)

    def _sum(self, name: str) -> float:
        return float(sum(getattr(phase, name) for phase in self.each))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
