"""The stress at a size that takes minutes, with seeds of its own."""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.service.engine.soak import Soak
from tests.stress import chaos, overload, reloads

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_server_is_overloaded_for_half_a_minute_and_answers_everybody() -> None:
    outcome = overload.run(seconds=30, times=3, peak_seconds=6)
    assert overload.broken(outcome) == []
    assert outcome.peak.statuses.keys() == {200}


def test_in_chaos_each_of_a_thousand_requests_gets_one_allowed_answer(tmp_path: Path) -> None:
    assert chaos.run(requests=1000, seed=1, directory=tmp_path).violations == {}


def test_models_are_swapped_so_often_that_a_leak_would_show() -> None:
    assert reloads.broken(reloads.run(times=20)) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_thousands_of_requests_failures_and_cancellations_nothing_is_locked_lost_or_wrong(
    caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.CRITICAL)  # each failed batch logs its traceback
    soak = Soak(seed)
    asyncio.run(soak.run(lambda sent: sent < 4000))
    assert soak.outcomes.total() == 4000
