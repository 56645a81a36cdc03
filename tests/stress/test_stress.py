"""The stress runs at a small size. These tests do not depend on the machine's speed; the commands measure that."""

from pathlib import Path

import pytest

from service.settings import CHECKPOINTS
from testbed.processes import serve_agentprm
from tests.stress import chaos, clients, overload, reloads

pytestmark = pytest.mark.timeout(300)


def test_a_server_under_overload_answers_everybody_and_lives_on() -> None:
    """``python -m tests.stress.overload`` runs longer and also checks pace, latency and memory."""
    outcome = overload.run(seconds=4, times=3, peak_seconds=2)
    assert overload.broken(outcome) == []
    assert outcome.peak.statuses.keys() == {200}


@pytest.mark.slow
def test_in_chaos_every_request_gets_one_allowed_answer_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """``python -m tests.stress.chaos`` takes more requests and any seed."""
    outcome = chaos.run(requests=300, seed=0, directory=tmp_path, failure_share=0.1)
    assert outcome.violations == {}
    # The run has tested what it is for.
    happened = {what for what, times in outcome.counts.items() if times}
    assert {"Redis killed", "Redis started again", "/admin/reload answered 200"} <= happened
    assert {"forwards that raised RuntimeError", "forwards that raised MemoryError"} <= happened
    assert {code for _, code in outcome.answers} >= {"scored", "internal", "deadline_exceeded", "invalid", "forbidden"}


def test_models_are_swapped_under_load_without_a_failed_request_and_their_memory_comes_back() -> None:
    """``python -m tests.stress.reloads`` swaps 50 times."""
    assert reloads.broken(reloads.run(times=4)) == []


def test_clients_of_forks_pools_tasks_and_threads_get_their_own_scores() -> None:
    """``python -m tests.stress.clients`` makes thousands of calls and measures them."""
    with serve_agentprm(CHECKPOINTS, "demo") as server:
        assert clients.broken(clients.run(server, parents=2, tasks=150, rounds=1)) == []
