"""The process and what is loaded in it: build, models, readiness, GPU memory."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.metrics.families import MODEL, Families
from service.versions import version_of

Memory = Mapping[str, Mapping[str, int]]


class _GpuMemory(Collector):
    """Reads the memory of GPUs at a scrape. Has no samples without a GPU."""

    def __init__(self) -> None:
        self.readers: dict[str, Callable[[], Memory]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "agentprm_gpu_memory_bytes",
            "Memory of a GPU: allocated by this service, reserved by its allocators, and total.",
            labels=["device", "kind"],
        )
        for (device, kind), size in self._sizes().items():
            family.add_metric([device, kind], size)
        yield family

    def _sizes(self) -> dict[tuple[str, str], int]:
        """Bytes by device and kind. What several processes use is summed; the device's total is not."""
        sizes: dict[tuple[str, str], int] = {}
        for read in self.readers.values():
            for device, kinds in read().items():
                for kind, size in kinds.items():
                    known = sizes.get((device, kind), 0)
                    sizes[device, kind] = max(known, size) if kind == "total" else known + size
        return sizes


class _FailedModels(Collector):
    """Reads at a scrape which models failed to start."""

    def __init__(self) -> None:
        self.read: Callable[[], Iterable[str]] = tuple

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "agentprm_model_failed", "1 for each wanted model that could not be loaded or warmed up.", labels=[MODEL]
        )
        for model in self.read():
            family.add_metric([model], 1)
        yield family


class ProcessMetrics:
    def __init__(self, families: Families) -> None:
        self._ready = families.gauge("agentprm_ready", "1 while /ready answers 200.")
        self._model_info = families.gauge(
            "agentprm_model_info", "1 for each loaded model.", [MODEL, "digest", "device", "dtype"]
        )
        self._load = families.gauge(
            "agentprm_model_load_duration_seconds", "Seconds to load and warm up a model.", [MODEL]
        )
        build = families.gauge("agentprm_build_info", "1, with the versions that run.", ["version", "python", "torch"])
        build.labels(version_of("agentprm"), platform.python_version(), version_of("torch")).set(1)
        self._gpu_memory = _GpuMemory()
        self._failed = _FailedModels()
        for collector in (self._gpu_memory, self._failed):
            families.registry.register(collector)
        ProcessCollector(registry=families.registry)

    def add_model(self, model: str) -> None:
        self._load.labels(model)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def watch_failed_models(self, read: Callable[[], Iterable[str]]) -> None:
        """Reads the references of the models that failed to start at each scrape."""
        self._failed.read = read

    def watch_gpu_memory(self, read: Callable[[], Memory], model: str = "") -> None:
        """Reads bytes by device and kind at each scrape: of this process, or of the workers of ``model``."""
        self._gpu_memory.readers[model] = read

    def remove_model(self, model: str) -> None:
        self._gpu_memory.readers.pop(model, None)

    def set_model_info(self, model: str, *, digest: str, device: str, dtype: str) -> None:
        self._model_info.labels(model, digest, device, dtype).set(1)

    def set_load_seconds(self, model: str, seconds: float) -> None:
        self._load.labels(model).set(seconds)
