"""Restarts without delays."""

import gc
from collections.abc import Iterator

import pytest

from service.engine.workers import supervisor


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    yield
    gc.collect()
