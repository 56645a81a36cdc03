"""The process and what is loaded in it: build, models, readiness, GPU memory."""

import platform
from collections.abc import Callable, Iterator, Mapping

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
        families.registry.register(self._gpu_memory)
        ProcessCollector(registry=families.registry)

    def add_model(self, model: str) -> None:
        self._load.labels(model)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def watch_gpu_memory(self, read: Callable[[], Memory], model: str = "") -> None:
        """Reads bytes by device and kind at each scrape: of this process, or of the workers of ``model``."""
        self._gpu_memory.readers[model] = read

    def remove_model(self, model: str) -> None:
        self._gpu_memory.readers.pop(model, None)

    def set_model_info(self, model: str, *, digest: str, device: str, dtype: str) -> None:
        self._model_info.labels(model, digest, device, dtype).set(1)

    def set_load_seconds(self, model: str, seconds: float) -> None:
        self._load.labels(model).set(seconds)
