"""Traffic of a run: agents that craft, faulty requests, a crowd of callers, and a Redis that hangs."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from agentprm import Client, State, Trajectory
from testbed.redis import RedisServer
from training.environments.textcraft.environment import TextCraft, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.evaluation.acting import act

AGENTS: Final = 4
PROPOSALS: Final = 8
CROWD: Final = 48
OTHER_MODEL: Final = "textcraft-demo-orm"
MODELS: Final = f"demo,{OTHER_MODEL}"
SETTINGS: Final = {
    "AGENTPRM_MAX_REQUESTS": "64",
    "AGENTPRM_MAX_QUEUE_TOKENS": "4096",  # a crowd exceeds it
    "AGENTPRM_PREFIX_CACHE_BYTES": str(4 * 2**20),  # small, to see evictions
}
"""Settings of the services under this traffic."""


def send(services: Sequence[str], redis: RedisServer, seconds: float) -> None:
    """Runs agents and faulty requests all the time, a crowd at a third of it, and a Redis that hangs at half."""
    started = time.monotonic()
    crowd_at, hang_at = seconds / 3, seconds / 2
    with _agents(services):
        while (passed := time.monotonic() - started) < seconds:
            for service in services:
                _send_faulty(service)
            if passed >= crowd_at:
                _send_crowd(services[0])
                crowd_at = seconds
            with redis.hanging() if hang_at <= passed < hang_at + seconds / 6 else nullcontext():
                time.sleep(min(1.0, seconds / 10))


@contextmanager
def _agents(services: Sequence[str]) -> Iterator[None]:
    """Runs agents for each service until the block ends, each with its own episodes.

    Raises:
        Exception: an agent failed; raised after the block.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(AGENTS * len(services)) as pool:
        playing = [pool.submit(_play, service, seed, stop) for seed, service in enumerate(list(services) * AGENTS)]
        try:
            yield
        finally:
            stop.set()
    for agent in playing:
        agent.result()


def _play(service: str, seed: int, stop: threading.Event) -> None:
    goals = list(train_goals())
    random.Random(seed).shuffle(goals)
    with Client(service, max_retries=20) as demo, Client(service, model=OTHER_MODEL, max_retries=20) as other:
        for goal in goals:
            if stop.is_set():
                return
            judge = _Judge(demo, other)
            act([goal], TextCraft, NoisyPlanner(), judge, proposals=PROPOSALS, episodes=1, seed=seed)
            demo.score_trajectory(judge.taken)


@dataclass(slots=True)
class _Judge:
    """Takes the best proposal by one model, and lets both models score the step taken."""

    demo: Client
    other: Client
    taken: list[Trajectory] = field(default_factory=list)

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        best = [self._best(state, actions) for state, actions in zip(states, proposed, strict=True)]
        self.taken = [state.take(action) for state, action in zip(states, best, strict=True)]
        self.demo.score_step(self.taken)
        self.other.score_step(self.taken)
        return best

    def _best(self, state: State, actions: Sequence[str]) -> str:
        return actions[self.demo.rank(state, actions).ranking[0].index]


def _send_faulty(service: str) -> None:
    """Sends one request of each kind that gets no score."""
    long = _body(f"{time.monotonic()} " + "stick " * 300)
    with httpx.Client(base_url=service, timeout=60) as http:
        http.post("/score_step", json={"items": []})
        http.post("/score_step", json={**long, "model": "nobody"})
        http.post("/score_step", json=_body("stick " * 1000))
        http.post("/score_step", json=long, headers={"x-deadline-ms": "1"})
        http.get("/nowhere")
        with suppress(httpx.ReadTimeout):  # the caller hangs up
            http.post("/score_trajectory", json=long, timeout=httpx.Timeout(5, read=0.001))


def _send_crowd(service: str) -> None:
    """Sends more requests at once than the queue holds."""
    bodies = [_body(f"craft {number} stick " + "stick " * 300, steps=number) for number in range(CROWD)]
    with httpx.Client(base_url=service, timeout=60) as http, ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(lambda body: http.post("/score_step", json=body), bodies))


def _body(task: str, steps: int = 1) -> dict[str, Any]:
    step = {"observation": f"{steps} left.", "action": "get 1 stick"}
    return {"items": [{"task": f"{steps} {task}", "steps": [step]}]}
