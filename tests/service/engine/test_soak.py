import asyncio
import logging

import pytest

from tests.service.engine.soak import Soak

REQUESTS = 400


def test_after_hundreds_of_requests_failures_and_cancellations_nothing_is_locked_lost_or_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``python -m tests.service.engine.soak --seconds 60`` runs longer, with another seed each time."""
    caplog.set_level(logging.CRITICAL)  # each failed batch would log its traceback
    soak = Soak(seed=0)
    asyncio.run(soak.run(lambda sent: sent < REQUESTS))
    assert soak.outcomes.total() == REQUESTS
    assert soak.outcomes["scored"] > REQUESTS / 4
    assert all(soak.outcomes[outcome] for outcome in ("failed", "given up")), "an outcome that never occurred"
