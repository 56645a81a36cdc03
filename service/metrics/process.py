"""The process and what is loaded in it: builds, models, readiness, memory."""

import platform
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.metrics.families import MODEL, Families

Memory = Mapping[str, Mapping[str, int]]


class _GpuMemory(Collector):
    """Read at a scrape; without samples where there is no GPU."""

    def __init__(self) -> None:
        self.read: Callable[[], Memory] = dict

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "agentprm_gpu_memory_bytes",
            "Memory of a GPU: in use by this process, kept by it for later, and all there is.",
            labels=["device", "kind"],
        )
        for device, kinds in self.read().items():
            for kind, size in kinds.items():
                family.add_metric([device, kind], size)
        yield family


class ProcessMetrics:
    def __init__(self, families: Families) -> None:
        self._ready = families.gauge("agentprm_ready", "1 while /ready answers 200.")
        self._model_info = families.gauge(
            "agentprm_model_info", "1 per loaded model.", [MODEL, "digest", "device", "dtype"]
        )
        self._load = families.gauge(
            "agentprm_model_load_duration_seconds", "From the checkpoint on disk to warmed up.", [MODEL]
        )
        build = families.gauge("agentprm_build_info", "1, with what runs.", ["version", "python", "torch"])
        build.labels(_version("agentprm"), platform.python_version(), _version("torch")).set(1)
        self._gpu_memory = _GpuMemory()
        families.registry.register(self._gpu_memory)
        ProcessCollector(registry=families.registry)

    def add_model(self, model: str) -> None:
        self._load.labels(model)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        self._ready.set_function(ready)

    def watch_gpu_memory(self, read: Callable[[], Memory]) -> None:
        """``read``: bytes by device and kind (allocated, reserved, total)."""
        self._gpu_memory.read = read

    def show_model(self, model: str, *, digest: str, device: str, dtype: str) -> None:
        self._model_info.labels(model, digest, device, dtype).set(1)

    def on_warm(self, model: str, load_seconds: float, warm_up_seconds: float) -> None:
        self._load.labels(model).set(load_seconds + warm_up_seconds)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"
