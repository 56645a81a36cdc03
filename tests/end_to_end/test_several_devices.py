"""A server whose models are computed by several processes, over HTTP."""

import os
import signal
from pathlib import Path

import pytest

from agentprm import Client
from testbed.processes import wait_until
from tests.end_to_end.conftest import started
from tests.end_to_end.test_shared_scores import random_trajectories

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.mark.parametrize("device", ["cpu,cpu", "cpu+cpu"])
def test_it_scores_as_one_process_does(device: str, client: Client, tmp_path: Path) -> None:
    trajectories = random_trajectories(20, seed=5)
    expected = client.score_trajectory(trajectories).results
    with started(tmp_path, None, device=device) as (_, url), Client(url) as spread:
        assert [model.device for model in spread.models().models] == [device]
        found = spread.score_trajectory(trajectories).results
    for ours, theirs in zip(expected, found, strict=True):
        assert [step.promise for step in theirs.steps] == pytest.approx([step.promise for step in ours.steps], abs=1e-5)


def test_a_signal_to_all_of_its_processes_is_one_to_stop(tmp_path: Path) -> None:
    with started(tmp_path, None, device="cpu,cpu") as (process, url), Client(url) as client:
        client.score_trajectory(random_trajectories(1, seed=6))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        client.score_trajectory(random_trajectories(4, seed=7))
        process.terminate()
        assert process.wait(60) == 0
    wait_until(lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children), "a process is left")


def test_a_worker_that_dies_is_told_to_the_probes(tmp_path: Path) -> None:
    with started(tmp_path, None, device="cpu+cpu") as (process, url), Client(url, max_retries=0) as client:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        with pytest.raises(Exception, match="nothing can be scored any more"):
            client.score_trajectory(random_trajectories(1, seed=8))
        assert not client.ready()
