"""Runs Redis, services and Prometheus as processes, sends traffic, and then checks every query."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.observe import traffic
from deploy.observe.check import (
    Finding,
    PanelData,
    Span,
    ask_panels,
    check_others,
    check_panels,
    check_rules,
    check_targets,
)
from deploy.observe.dashboards import read_dashboards
from service.settings import CHECKPOINTS
from testbed.processes import serve_agentprm, wait_until
from testbed.prometheus import Prometheus, serve_prometheus
from testbed.redis import RedisServer, serve_redis

PATIENCE_SECONDS: Final = 60
"""Seconds for Prometheus to scrape all services, or to evaluate all rules."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs that a run needs."""

    redis: Path
    prometheus: Path


@dataclass(frozen=True, slots=True)
class Run:
    """Results of a run: findings, and the data of each dashboard's panels."""

    span: Span
    findings: list[Finding] = field(default_factory=list)
    dashboards: dict[str, list[PanelData]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.wrong]


def observe(programs: Programs, *, services: int, seconds: float, scrape_seconds: float) -> Run:
    """Sends traffic for ``seconds`` and checks every panel, variable, annotation and rule."""
    with ExitStack() as stack:
        redis = stack.enter_context(serve_redis(programs.redis))
        urls = [stack.enter_context(_service(redis)) for _ in range(services)]
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="observe-")))
        targets = [url.removeprefix("http://") for url in urls]
        prometheus = stack.enter_context(
            serve_prometheus(programs.prometheus, targets, directory, scrape_seconds=scrape_seconds)
        )
        _wait_until_scraped(prometheus, services, since=0)
        started = time.time()
        traffic.send(urls, redis, seconds)
        return _check(prometheus, started, scrape_seconds, services)


@contextmanager
def _service(redis: RedisServer) -> Iterator[str]:
    settings = {**traffic.SETTINGS, "AGENTPRM_REDIS_URL": redis.url}
    with serve_agentprm(CHECKPOINTS, traffic.MODELS, settings) as server:
        yield server.url


def _wait_until_scraped(prometheus: Prometheus, services: int, since: float) -> None:
    complaint = "Prometheus did not scrape every service"
    wait_until(lambda: prometheus.scraped_since(since) == services, complaint, PATIENCE_SECONDS)


def _check(prometheus: Prometheus, started: float, scrape_seconds: float, services: int) -> Run:
    ended = time.time()
    _wait_until_scraped(prometheus, services, since=ended)
    scraped = time.time()
    wait_until(
        lambda: prometheus.last_evaluation() > scraped, "Prometheus did not evaluate every rule", PATIENCE_SECONDS
    )
    run = Run(Span(started, time.time(), scrape_seconds))
    run.findings.append(check_targets(prometheus, services))
    run.findings.extend(check_rules(prometheus, run.span))
    for name, dashboard in read_dashboards().items():
        run.dashboards[name] = ask_panels(prometheus, run.span, dashboard)
        run.findings.extend(check_panels(name, run.dashboards[name]))
        run.findings.extend(check_others(prometheus, run.span, name, dashboard))
    return run
