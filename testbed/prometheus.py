"""Prometheus with the files of deploy/prometheus."""

import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from testbed.processes import free_port, wait_until

FILES: Final = Path(__file__).parents[1] / "deploy" / "prometheus"
START_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Series:
    """Finite samples only, oldest first: seconds since the epoch, and values."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def over(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """The series of a time range that have a finite sample.

        Raises:
            ValueError: the expression is wrong; Prometheus says why.
        """
        found = self._ask("query_range", query=expression, start=start, end=end, step=step)["result"]
        series = [_series(one["metric"], one["values"]) for one in found]
        return [one for one in series if one.times]

    def scraped_since(self, time: float) -> int:
        """How many services were."""
        found = self._ask("query", query=f"count(timestamp(agentprm_ready) > {time})")["result"]
        return int(found[0]["value"][1]) if found else 0

    def last_evaluation(self) -> float:
        """When the group of rules was evaluated that was evaluated longest ago."""
        groups = self._ask("rules")["groups"]
        return min(datetime.fromisoformat(group["lastEvaluation"]).timestamp() for group in groups)

    def rules(self) -> list[dict[str, Any]]:
        """Each with its ``name``, ``type``, ``health`` and, where it failed, ``lastError``."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self._ask("targets")["activeTargets"]
        return targets

    def _ask(self, path: str, **parameters: str | float) -> Any:
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        if reply["status"] != "success":
            raise ValueError(f"{reply['error']}: {parameters.get('query', path)}")
        return reply["data"]


def find_prometheus() -> Path | None:
    found = shutil.which("prometheus")
    return Path(found) if found else None


@contextmanager
def serve_prometheus(
    program: Path, services: Sequence[str], directory: Path, *, scrape_seconds: float
) -> Iterator[Prometheus]:
    """Scrapes ``services`` (host:port); its files lie in ``directory``."""
    shutil.copytree(FILES, directory, dirs_exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(_with_targets(config.read_text(encoding="utf-8"), services, scrape_seconds), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    options = {
        "--config.file": str(config),
        "--storage.tsdb.path": str(directory / "data"),
        "--web.listen-address": address,
        "--log.level": "warn",
    }
    process = subprocess.Popen([str(program), *(f"{name}={value}" for name, value in options.items())])  # noqa: S603
    try:
        wait_until(lambda: _ready(address, process), START_SECONDS, f"Prometheus at {address}")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait()


def _with_targets(config: str, services: Sequence[str], scrape_seconds: float) -> str:
    """The configuration as it is, but for where the services are and how often they are asked."""
    parsed = yaml.safe_load(config)
    interval = f"{round(scrape_seconds * 1000)}ms"
    parsed["global"] |= {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    (job,) = parsed["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(services)}]
    return str(yaml.safe_dump(parsed))


def _ready(address: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus ended with status {process.returncode}")
    try:
        return httpx.get(f"http://{address}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _series(labels: dict[str, str], samples: list[tuple[float, str]]) -> Series:
    finite = [(time, float(value)) for time, value in samples if math.isfinite(float(value))]
    return Series(labels, [time for time, _ in finite], [value for _, value in finite])
