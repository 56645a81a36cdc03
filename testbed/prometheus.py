"""Prometheus as a process, with the files of deploy/prometheus."""

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

from testbed.processes import HOST, PATIENCE, free_port, responds, stop, wait_until

FILES: Final = Path(__file__).parents[1] / "deploy" / "prometheus"


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its finite samples, oldest first; times are seconds since the epoch."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """HTTP API of a Prometheus."""

    url: str

    def over(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Returns the series of a time range that have a finite sample.

        Raises:
            ValueError: the expression is wrong; Prometheus says why.
        """
        found = self._get("query_range", query=expression, start=start, end=end, step=step)["result"]
        series = [_series(result["metric"], result["values"]) for result in found]
        return [line for line in series if line.times]

    def scraped_since(self, time: float) -> int:
        """Returns how many services were scraped after ``time`` (seconds since the epoch)."""
        found = self._get("query", query=f"count(timestamp(agentprm_ready) > {time})")["result"]
        return int(found[0]["value"][1]) if found else 0

    def last_evaluation(self) -> float:
        """Returns the time at which every group of rules had been evaluated at least once since."""
        groups = self._get("rules")["groups"]
        return min(datetime.fromisoformat(group["lastEvaluation"]).timestamp() for group in groups)

    def rules(self) -> list[dict[str, Any]]:
        """Returns all rules, each with its ``name``, ``type``, ``health`` and, where it failed, ``lastError``."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        targets: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return targets

    def _get(self, path: str, **parameters: str | float) -> Any:
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=PATIENCE).json()
        if reply["status"] != "success":
            raise ValueError(f"{reply['error']}: {parameters.get('query', path)}")
        return reply["data"]


def find_prometheus() -> Path | None:
    """Returns the installed Prometheus."""
    found = shutil.which("prometheus")
    return Path(found) if found else None


@contextmanager
def serve_prometheus(
    program: Path, services: Sequence[str], directory: Path, *, scrape_seconds: float
) -> Iterator[Prometheus]:
    """Runs Prometheus, which scrapes ``services`` (host:port) and keeps its files in ``directory``."""
    shutil.copytree(FILES, directory, dirs_exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(_with_targets(config.read_text(encoding="utf-8"), services, scrape_seconds), encoding="utf-8")
    address = f"{HOST}:{free_port()}"
    options = {
        "--config.file": str(config),
        "--storage.tsdb.path": str(directory / "data"),
        "--web.listen-address": address,
        "--log.level": "warn",
    }
    process = subprocess.Popen([str(program), *(f"{name}={value}" for name, value in options.items())])  # noqa: S603
    try:
        url = f"http://{address}"
        wait_until(lambda: responds(f"{url}/-/ready", process), f"Prometheus at {url} did not become ready")
        yield Prometheus(url)
    finally:
        stop(process)


def _with_targets(config: str, services: Sequence[str], scrape_seconds: float) -> str:
    """Returns the configuration with other targets and intervals."""
    parsed = yaml.safe_load(config)
    interval = f"{round(scrape_seconds * 1000)}ms"
    parsed["global"] |= {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    (job,) = parsed["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(services)}]
    return str(yaml.safe_dump(parsed))


def _series(labels: dict[str, str], samples: list[tuple[float, str]]) -> Series:
    finite = [(time, float(value)) for time, value in samples if math.isfinite(float(value))]
    return Series(labels, [time for time, _ in finite], [value for _, value in finite])
