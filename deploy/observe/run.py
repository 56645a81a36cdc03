"""One run: Redis, services and Prometheus as processes, traffic, and then everything that is asked of Prometheus."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.observe import traffic
from deploy.observe.check import (
    Drawn,
    Finding,
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
"""In which all services have been scraped and all rules evaluated."""


@dataclass(frozen=True, slots=True)
class Programs:
    redis: Path
    prometheus: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found out, and what each dashboard would draw of it."""

    span: Span
    findings: list[Finding] = field(default_factory=list)
    dashboards: dict[str, list[Drawn]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[Finding]:
        return [one for one in self.findings if one.wrong]


def observe(programs: Programs, *, services: int, seconds: float, scrape_seconds: float) -> Seen:
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
        traffic.live(urls, redis, seconds)
        return _look(prometheus, started, scrape_seconds, services)


@contextmanager
def _service(redis: RedisServer) -> Iterator[str]:
    settings = {**traffic.SETTINGS, "AGENTPRM_REDIS_URL": redis.url}
    with serve_agentprm(CHECKPOINTS, traffic.MODELS, settings) as server:
        yield server.url


def _wait_until_scraped(prometheus: Prometheus, services: int, since: float) -> None:
    complaint = "Prometheus did not scrape every service"
    wait_until(lambda: prometheus.scraped_since(since) == services, complaint, PATIENCE_SECONDS)


def _look(prometheus: Prometheus, started: float, scrape_seconds: float, services: int) -> Seen:
    ended = time.time()
    _wait_until_scraped(prometheus, services, since=ended)
    scraped = time.time()
    wait_until(
        lambda: prometheus.last_evaluation() > scraped, "Prometheus did not evaluate every rule", PATIENCE_SECONDS
    )
    seen = Seen(Span(started, time.time(), scrape_seconds))
    seen.findings.append(check_targets(prometheus, services))
    seen.findings.extend(check_rules(prometheus, seen.span))
    for name, dashboard in read_dashboards().items():
        seen.dashboards[name] = ask_panels(prometheus, seen.span, dashboard)
        seen.findings.extend(check_panels(name, seen.dashboards[name]))
        seen.findings.extend(check_others(prometheus, seen.span, name, dashboard))
    return seen
