"""Two replicas and one Redis: what one has scored the other knows, bit for bit, and so does the next process."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from agentprm import Client, State, Step, Trajectory
from agentprm.wire import TrajectoryResult
from testbed.redis import find_valkey
from tests.end_to_end.conftest import serving
from tests.service.score_cache.servers import PATIENCE, Server, running

WORDS = "get craft 1 2 4 birch_logs birch_planks stick using Got Crafted left . Could not find"
AT_ONCE = 50
TOLERANCE = 1e-5

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Server(str(find_valkey()), tmp_path_factory.mktemp("redis"), "--save", "")
    with running(server):
        yield server.url


def random_trajectories(count: int, seed: int) -> list[Trajectory]:
    rng = Random(seed)

    def text(longest: int) -> str:
        return " ".join(rng.choices(WORDS.split(), k=rng.randint(1, longest)))

    return [Trajectory(text(20), tuple(Step(text(8), text(6)) for _ in range(rng.randint(1, 4)))) for _ in range(count)]


def scored(url: str, trajectories: list[Trajectory]) -> list[TrajectoryResult]:
    parts = [trajectories[start : start + AT_ONCE] for start in range(0, len(trajectories), AT_ONCE)]
    with Client(url) as client:
        return [result for part in parts for result in client.score_trajectory(part).results]


def wait_until_written(url: str) -> None:
    """Waits for the scores that are written after the replies."""
    deadline = time.monotonic() + PATIENCE
    nothing = re.compile(r"^agentprm_score_cache_unwritten 0\.0$", re.MULTILINE)
    while not nothing.search(httpx.get(f"{url}/metrics", timeout=PATIENCE).text):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_thousand_trajectories_are_computed_by_one_replica_and_known_to_all(
    redis_url: str, server: str, tmp_path: Path
) -> None:
    trajectories = random_trajectories(1000, seed=1)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for directory in (first, second, third):
        directory.mkdir()
    with serving(first, redis_url=redis_url) as one, serving(second, redis_url=redis_url) as other:
        computed = scored(one, trajectories)
        wait_until_written(one)
        assert_known(scored(other, trajectories), computed)
    with serving(third, redis_url=redis_url, score_cache_items="0") as restarted:
        assert_known(scored(restarted, trajectories), computed)
    for known, fresh in zip(computed, scored(server, trajectories), strict=True):
        assert [step.raw for step in known.steps] == pytest.approx([step.raw for step in fresh.steps], abs=TOLERANCE)


def assert_known(found: list[TrajectoryResult], computed: list[TrajectoryResult]) -> None:
    assert [result.steps for result in found] == [result.steps for result in computed], "bit for bit"
    assert {result.usage.computed for result in found} == {0}
    assert [result.usage.score_cache for result in found] == [result.usage.tokens for result in computed]


def test_progress_takes_the_step_before_from_another_replica(redis_url: str, server: str, tmp_path: Path) -> None:
    (trajectory,) = random_trajectories(1, seed=2)
    state = State(trajectory.task, trajectory.steps, "Got 1 stick")
    first_log, second_log = tmp_path / "first", tmp_path / "second"
    first_log.mkdir()
    second_log.mkdir()
    with serving(first_log, redis_url=redis_url) as first, Client(first) as client:
        before = client.score(trajectory)
        wait_until_written(first)
    with serving(second_log, redis_url=redis_url) as second, Client(second) as client:
        ranked = client.rank(state, ["craft 1 stick using 2 birch_planks"]).ranking[0]
    with Client(server) as client:
        fresh = client.rank(state, ["craft 1 stick using 2 birch_planks"]).ranking[0]
    assert ranked.progress == ranked.promise - before.promise
    assert ranked.progress == pytest.approx(fresh.progress, abs=TOLERANCE)
