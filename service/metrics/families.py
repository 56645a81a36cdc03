"""The kinds of metrics, on one registry, and the removal of a model's series. Knows no metric by name."""

from bisect import bisect_left
from collections import Counter as Multiset
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

MODEL: Final = "model"


class Registry(CollectorRegistry):
    """Collects all but the ``_created`` samples: nearly half of the text, and nobody reads it.

    The library's own switch for them holds for the whole process; this one holds for one registry.
    """

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _ByModel(Protocol):
    def remove_by_labels(self, labels: dict[str, str]) -> None: ...


F = TypeVar("F", Counter, Gauge, Histogram)


class Distribution(Collector):
    """A histogram by model that takes many values at once, far cheaper than the library's takes each.

    It has no lock: use it on the event loop only.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add_model(self, model: str) -> None:
        self._counts.setdefault(model, [0] * (len(self._bounds) + 1))
        self._sums.setdefault(model, 0.0)

    def observe(self, model: str, values: Sequence[float]) -> None:
        counts, bounds = self._counts[model], self._bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sums[model] += sum(values)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        self._counts.pop(labels[MODEL], None)
        self._sums.pop(labels[MODEL], None)

    def collect(self) -> Iterator[Metric]:
        family = Metric(self._name, self._documentation, "histogram")
        upper = [*map(floatToGoString, self._bounds), "+Inf"]
        for model, counts in self._counts.items():
            for bound, count in zip(upper, accumulate(counts), strict=True):
                family.add_sample(f"{self._name}_bucket", {MODEL: model, "le": bound}, count)
            family.add_sample(f"{self._name}_count", {MODEL: model}, sum(counts))
            if self._bounds[0] >= 0:  # a sum that can fall is no counter
                family.add_sample(f"{self._name}_sum", {MODEL: model}, self._sums[model])
        yield family


class ReadCounter(Collector):
    """A counter by model that reads its value by a function at each scrape, which the library's own cannot do."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._read: dict[str, Callable[[], int]] = {}

    def add_model(self, model: str) -> None:
        self._read.setdefault(model, int)  # int() is 0

    def set_function(self, model: str, read: Callable[[], int]) -> None:
        self._read[model] = read

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        self._read.pop(labels[MODEL], None)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=[MODEL])
        for model, read in self._read.items():
            family.add_metric([model], read())
        yield family


C = TypeVar("C", Distribution, ReadCounter)


class Families:
    """Makes metrics and registers them. ``remove_model`` removes the series of an unloaded model from all of them."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.models: Multiset[str] = Multiset()
        """Models in memory by reference. One that is loaded again while it still unloads is there twice."""
        self._by_model: list[_ByModel] = []

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        return self._kept(Counter(name, documentation, labels, registry=self.registry), labels)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        return self._kept(Gauge(name, documentation, labels, registry=self.registry), labels)

    def histogram(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> Histogram:
        return self._kept(Histogram(name, documentation, labels, buckets=buckets, registry=self.registry), labels)

    def distribution(self, name: str, documentation: str, bounds: Sequence[float]) -> Distribution:
        return self._registered(Distribution(name, documentation, bounds))

    def read_counter(self, name: str, documentation: str) -> ReadCounter:
        return self._registered(ReadCounter(name, documentation))

    def add_model(self, model: str) -> None:
        self.models[model] += 1

    def remove_model(self, model: str) -> None:
        self.models[model] -= 1
        if not self.models[model]:
            del self.models[model]
            for family in self._by_model:
                family.remove_by_labels({MODEL: model})

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def _kept(self, family: F, labels: Sequence[str]) -> F:
        if MODEL in labels:
            self._by_model.append(family)
        return family

    def _registered(self, collector: C) -> C:
        self.registry.register(collector)
        self._by_model.append(collector)
        return collector
