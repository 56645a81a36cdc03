"""Two replicas and one Redis: a score of the one is in the other, bit for bit, and in the next process too."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from agentprm import Client, State, Step, Trajectory
from agentprm.wire import TrajectoryResult
from testbed.processes import PATIENCE, wait_until
from testbed.redis import RedisServer, find_valkey, running
from tests.end_to_end.conftest import serving

WORDS = "get craft 1 2 4 birch_logs birch_planks stick using Got Crafted left . Could not find"
AT_ONCE = 50
READ_ANYHOW = {"redis_timeout_ms": "1000"}
"""The longest that may be set: a busy machine misses the usual 25 ms, and then a score is computed again."""
TOLERANCE = 1e-5

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = RedisServer(str(find_valkey()), tmp_path_factory.mktemp("redis"), "--save", "")
    with running(server):
        yield server.url


@pytest.fixture(scope="module")
def replicas(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of two servers that share that Redis."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with (
        serving(first, redis_url=redis_url, **READ_ANYHOW) as first_url,
        serving(second, redis_url=redis_url, **READ_ANYHOW) as second_url,
    ):
        for url in (first_url, second_url):
            wait_until_well(url)
        yield first_url, second_url


def random_trajectories(count: int, seed: int) -> list[Trajectory]:
    rng = Random(seed)

    def text(longest: int) -> str:
        return " ".join(rng.choices(WORDS.split(), k=rng.randint(1, longest)))

    return [Trajectory(text(20), tuple(Step(text(8), text(6)) for _ in range(rng.randint(1, 4)))) for _ in range(count)]


def scored(url: str, trajectories: list[Trajectory]) -> list[TrajectoryResult]:
    parts = [trajectories[start : start + AT_ONCE] for start in range(0, len(trajectories), AT_ONCE)]
    with Client(url) as client:
        return [result for part in parts for result in client.score_trajectory(part).results]


def wait_until_well(url: str) -> None:
    """The server is ready before its first probe of Redis has ended, and reads no score until then."""
    for operation in ("read", "write"):
        wait_for_sample(url, f'agentprm_score_cache_breaker_state{{operation="{operation}"}} 0.0')


def wait_until_written(url: str) -> None:
    """Waits for the scores that are written after the replies."""
    wait_for_sample(url, "agentprm_score_cache_unwritten 0.0")


def wait_for_sample(url: str, sample: str) -> None:
    """Returns when ``/metrics`` has this line."""
    wait_until(lambda: sample in httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines(), f"no {sample}")


def test_a_thousand_trajectories_are_computed_by_one_replica_and_known_to_all(
    redis_url: str, replicas: tuple[str, str], server: str, tmp_path: Path
) -> None:
    first, second = replicas
    trajectories = random_trajectories(1000, seed=1)
    computed = scored(first, trajectories)
    wait_until_written(first)
    assert_known(scored(second, trajectories), computed)
    with serving(tmp_path, redis_url=redis_url, score_cache_items="0", **READ_ANYHOW) as restarted:
        wait_until_well(restarted)
        assert_known(scored(restarted, trajectories), computed)
    for known, fresh in zip(computed, scored(server, trajectories), strict=True):
        assert [step.raw for step in known.steps] == pytest.approx([step.raw for step in fresh.steps], abs=TOLERANCE)


def assert_known(found: list[TrajectoryResult], computed: list[TrajectoryResult]) -> None:
    assert [result.steps for result in found] == [result.steps for result in computed], "bit for bit"
    assert {result.usage.computed for result in found} == {0}
    assert [result.usage.score_cache for result in found] == [result.usage.tokens for result in computed]


def test_progress_takes_the_step_before_from_another_replica(replicas: tuple[str, str], server: str) -> None:
    first, second = replicas
    (trajectory,) = random_trajectories(1, seed=2)
    state = State(trajectory.task, trajectory.steps, "Got 1 stick")
    with Client(first) as client:
        before = client.score(trajectory)
        wait_until_written(first)
    with Client(second) as client:
        ranked = client.rank(state, ["craft 1 stick using 2 birch_planks"]).ranking[0]
    with Client(server) as client:
        fresh = client.rank(state, ["craft 1 stick using 2 birch_planks"]).ranking[0]
    assert ranked.progress == ranked.promise - before.promise
    assert ranked.progress == pytest.approx(fresh.progress, abs=TOLERANCE)
