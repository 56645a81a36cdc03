"""A server whose models are computed by several processes, over HTTP."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from agentprm import Client, NotReady
from testbed.processes import PATIENCE, wait_until, worker_processes
from tests.end_to_end.conftest import ROOT, started
from tests.end_to_end.test_shared_scores import random_trajectories

START_SECONDS = 120
"""Seconds for a worker to start on a busy machine."""

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


def alive(child: int) -> bool:
    return Path(f"/proc/{child}/exe").exists()


@pytest.mark.parametrize("device", ["cpu,cpu", pytest.param("cpu+cpu", marks=pytest.mark.slow)])
def test_it_scores_as_one_process_does(device: str, client: Client, tmp_path: Path) -> None:
    trajectories = random_trajectories(20, seed=5)
    expected = client.score_trajectory(trajectories).results
    with started(tmp_path, None, device=device) as (_, url), Client(url) as spread:
        assert [model.device for model in spread.models().models] == [device]
        found = spread.score_trajectory(trajectories).results
    for ours, theirs in zip(expected, found, strict=True):
        assert [step.promise for step in theirs.steps] == pytest.approx([step.promise for step in ours.steps], abs=1e-5)


@pytest.mark.slow
def test_a_signal_to_all_of_its_processes_is_one_to_stop(tmp_path: Path) -> None:
    with started(tmp_path, None, device="cpu,cpu") as (process, url), Client(url) as client:
        client.score_trajectory(random_trajectories(1, seed=6))
        children = worker_processes(process.pid)
        assert len(children) == 2
        for child in children:
            os.kill(child, signal.SIGTERM)
        client.score_trajectory(random_trajectories(4, seed=7))
        process.terminate()
        assert process.wait(60) == 0
    wait_until(lambda: not any(map(alive, children)), "a process is left")


@pytest.mark.slow
def test_the_only_worker_is_killed_while_idle_and_comes_back(tmp_path: Path) -> None:
    """Nobody asks for a score before the probes know. No answer is a 500, and the scores stay the same."""
    trajectories = random_trajectories(2, seed=8)
    settings = {"device": "cpu+cpu", "score_cache_items": "0"}
    with started(tmp_path, None, **settings) as (process, url), Client(url, max_retries=0) as client:
        before = client.score_trajectory(trajectories).results
        first = worker_processes(process.pid)
        os.kill(first[-1], signal.SIGKILL)
        wait_until(lambda: not client.ready(), "the probes do not know that it has ended", pause=0.01)
        assert httpx.get(f"{url}/health", timeout=PATIENCE).status_code == 200
        with pytest.raises(NotReady) as refused:
            client.score_trajectory(trajectories)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1
        wait_until(client.ready, "it did not come back", START_SECONDS)
        after = client.score_trajectory(trajectories).results
        assert [item.steps for item in after] == [item.steps for item in before]
        assert not set(first) & set(worker_processes(process.pid))
        metrics = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
        assert 'agentprm_worker_restarts_total{model="textcraft-demo@1"} 1.0' in metrics
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_signal_to_stop_during_a_restart_leaves_no_process(tmp_path: Path) -> None:
    with started(tmp_path, None, device="cpu+cpu") as (process, url), Client(url) as client:
        first = set(worker_processes(process.pid))
        os.kill(min(first), signal.SIGKILL)
        wait_until(lambda: set(worker_processes(process.pid)) - first, "no restart has begun", pause=0.001)
        children = first | set(worker_processes(process.pid))
        assert not client.ready()
        process.terminate()
        assert process.wait(60) == 0
    wait_until(lambda: not any(map(alive, children)), "a process is left")


def test_a_worker_that_is_killed_at_the_start_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTPRM_")}
    environment = {**inherited, "AGENTPRM_PORT": "0", "AGENTPRM_DEVICE": "cpu,cpu", "AGENTPRM_CPU_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=log)
    wait_until(lambda: len(worker_processes(process.pid)) == 2, "the workers did not start", START_SECONDS, pause=0.005)
    children = worker_processes(process.pid)
    os.kill(children[-1], signal.SIGKILL)
    assert process.wait(START_SECONDS) == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("agentprm: the worker on cpu has ended while it loaded the model (")
    wait_until(lambda: not any(map(alive, children)), "a process is left")
