"""Fixtures of the servers that tests run against: Redis, Valkey and a collector of traces."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from service.redis_client.breaker import CircuitBreaker
from testbed.redis import RedisServer, Start, find_valkey, starting
from tests.service.score_cache.caching import AMPLE, BRIEF
from tests.service.tracing.collector import Collector, collecting


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@pytest.fixture(scope="session", params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> str:
    """Path of a server. Valkey comes with the development requirements, Redis with the machine."""
    if request.param == "valkey":
        return str(find_valkey())
    path = shutil.which("redis-server")
    if path is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("redis-server is not installed")
    return path


@pytest.fixture
def start(binary: str, tmp_path: Path) -> Iterator[Start]:
    """Returns a function that starts a server, which ends with the test."""
    with starting(binary, tmp_path) as started:
        yield started


@pytest.fixture
def server(start: Start) -> RedisServer:
    return start()


GRACE = "service.score_cache.redis_tier.GRACE_SECONDS"


@pytest.fixture(autouse=True)
def ample_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that answers is in time, however busy the machine is."""
    monkeypatch.setattr(GRACE, AMPLE)


@pytest.fixture
def brief_grace(ample_grace: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function that makes background work on Redis give up soon: for a Redis that hangs."""
    return partial(monkeypatch.setattr, GRACE, BRIEF)


@pytest.fixture
def brief_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the start wait only briefly for the first probe: for a Redis that fails from the start."""
    start = CircuitBreaker.start
    monkeypatch.setattr(CircuitBreaker, "start", lambda breaker, _: start(breaker, BRIEF))
