"""A running agent collects its own training set: scores and outcomes of a real server become rollouts."""

import signal
import time
from pathlib import Path

import httpx
import pytest

from agentprm import Client
from agentprm.errors import InvalidRequest
from tests.end_to_end.conftest import started
from training.rollouts.reading import read

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly

LOOK = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
CHAT = [
    {"role": "user", "content": "Refund order 17."},
    {"role": "assistant", "content": "I look.", "tool_calls": [LOOK]},
    {"role": "tool", "tool_call_id": "c1", "content": "paid"},
    {"role": "assistant", "content": "Done."},
]


def test_what_was_scored_is_read_back_with_its_outcome_though_the_server_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "recorded"
    with started(tmp_path, None, record=str(directory)) as (process, url), Client(url) as prm:
        prm.score({"messages": CHAT[:2], "trajectory_id": "chat"})
        prm.rank({"messages": CHAT[:3], "trajectory_id": "chat"}, ["Done.", "Wait."])
        prm.score({"messages": CHAT, "trajectory_id": "chat"})
        prm.score({"messages": CHAT[:2]})  # without an id it is not recorded
        assert prm.report_outcome("chat", 1.0, query="order 17").trajectory_id == "chat"
        wait_for(directory, b'"outcome"')
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    reading = read([directory])
    assert reading.faults == []
    (rollout,) = reading.rollouts
    assert (rollout.steps, rollout.outcome, rollout.query) == (2, 1.0, "order 17")


def wait_for(directory: Path, text: bytes) -> None:
    deadline = time.monotonic() + 60
    while not any(text in path.read_bytes() for path in directory.glob("*.jsonl")):
        assert time.monotonic() < deadline, "it was not recorded"
        time.sleep(0.05)


def test_a_service_that_does_not_record_refuses_outcomes_in_a_sentence(server: str) -> None:
    with Client(server) as prm, pytest.raises(InvalidRequest, match="this service records nothing"):
        prm.report_outcome("chat", 1.0)
    with Client(server) as prm, pytest.raises(InvalidRequest, match=r"outcome must be from 0 to 1, not 1\.5"):
        prm.report_outcome("chat", 1.5)
    refused = httpx.post(f"{server}/outcomes", json={"trajectory_id": "", "outcome": 1})
    assert refused.status_code == 422
