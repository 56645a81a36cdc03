"""The end of the process: SIGTERM lets it answer what it has accepted, and SIGKILL loses no score that Redis has."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from agentprm import Client
from agentprm.wire import ScoreTrajectoryReply
from model_store.format.manifest import parse_manifest
from model_store.format.store import Store
from service.settings import CHECKPOINTS
from testbed.processes import PATIENCE, wait_until
from testbed.redis import RedisServer, find_valkey, running
from tests.end_to_end.conftest import ROOT, started
from tests.end_to_end.test_shared_scores import (
    READ_ANYHOW,
    assert_known,
    random_trajectories,
    scored,
    wait_until_well,
    wait_until_written,
)

REQUESTS = 24
AT_ONCE = 40

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(RedisServer(str(find_valkey()), tmp_path_factory.mktemp("redis"), "--save", "")) as server:
        yield server.url


def wait_until_queued(url: str, tokens: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        text = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
        found = re.search(r"^agentprm_queue_tokens\{.*\} (\S+)$", text, re.MULTILINE)
        if found and float(found[1]) > tokens:
            return
        assert time.monotonic() < deadline


def test_told_to_stop_in_the_middle_of_load_it_answers_all_that_it_has_accepted(tmp_path: Path) -> None:
    trajectories = random_trajectories(REQUESTS * AT_ONCE, seed=3)
    parts = [trajectories[start : start + AT_ONCE] for start in range(0, len(trajectories), AT_ONCE)]
    settings = {"max_batch_tokens": "64", "max_queue_tokens": "10000000", "prefix_cache_bytes": "0"}
    with (
        started(tmp_path, None, **settings) as (process, url),
        ThreadPoolExecutor(REQUESTS) as threads,
        Client(url, max_retries=0) as client,
    ):
        asked = [threads.submit(client.score_trajectory, part) for part in parts]
        # When the first is answered the last are still in the queue.
        wait_until_queued(url, tokens=sum(len(part) for part in parts))
        process.terminate()
        replies = [future.result(timeout=PATIENCE) for future in asked]
        assert process.wait(timeout=PATIENCE) == 0
    assert all(isinstance(reply, ScoreTrajectoryReply) for reply in replies)
    assert [len(reply.results) for reply in replies] == [AT_ONCE] * REQUESTS


def test_killed_and_started_again_it_still_knows_its_scores(redis_url: str, tmp_path: Path) -> None:
    trajectories = random_trajectories(100, seed=4)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with started(first, None, redis_url=redis_url, **READ_ANYHOW) as (process, url):
        wait_until_well(url)
        computed = scored(url, trajectories)
        wait_until_written(url)
        process.kill()
        assert process.wait(timeout=PATIENCE) < 0
    with started(second, None, redis_url=redis_url, **READ_ANYHOW) as (_, url):
        wait_until_well(url)
        assert_known(scored(url, trajectories), computed)


def test_a_hangup_follows_an_alias_that_points_elsewhere(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(CHECKPOINTS, store.root)
    with started(tmp_path, model_store=str(store.root)) as (process, url), Client(url) as client:
        assert [model.name for model in client.models().models] == ["textcraft-demo"]
        store.set_alias("demo", "textcraft-demo-orm@1")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: client.models().models[0].name == "textcraft-demo-orm", "the alias was not followed")
        reply = client.score_step(random_trajectories(1, seed=5))
        assert reply.model.name == "textcraft-demo-orm"


def test_a_model_that_fails_its_warm_up_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    """The weights are NaN, which no check of the file can see."""
    source = tmp_path / "source"
    shutil.copytree(CHECKPOINTS / "textcraft-demo" / "1", source)
    manifest = parse_manifest((source / "prm.json").read_text())
    (source / "prm.json").unlink()
    weights = load_file(source / "model.safetensors")
    name = next(name for name in weights if "embed" in name)
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, source / "model.safetensors")
    store = Store(tmp_path / "store")
    store.root.mkdir()
    store.publish(source, replace(manifest, name="broken"))
    environment = {**os.environ, "AGENTPRM_PORT": "0", "AGENTPRM_MODEL_STORE": str(store.root)}
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        env={**environment, "AGENTPRM_MODELS": "broken"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "the service cannot start: broken@1 failed its warm-up: the engine gave no finite score" in done.stderr
    assert done.stderr.splitlines()[-1] == "agentprm: the service could not start; the log above says why"
