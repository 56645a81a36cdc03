"""Sends thousands of mixed requests while everything fails: each must get one well-formed answer that is allowed.

    python -m tests.stress.chaos --requests 10000 --seed 0

The application, its checkpoints and Redis are real. Forwards fail, callers hang up or send nonsense, Redis is killed
and comes back twice, the model is swapped several times, and another is loaded and unloaded. Every score is compared
with that of a plain forward. The exit status is 1 if anything is wrong, with a sentence for each violation.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import uvloop

from service.app import create_app
from service.models.load import load_models
from testbed.processes import PATIENCE
from testbed.redis import running
from tests.stress.callers import Callers, read_json
from tests.stress.connection import request_bytes
from tests.stress.mixture import ROUTES
from tests.stress.stage import OTHER_MODEL, Stage
from tests.stress.unreliable import Complaints, RunningApp, Unreliable, serving

FAILURE_SHARE: Final = 0.02
"""Share of all layers' forwards that fail."""
SWAPS: Final = 5
ATTEMPTS: Final = 20
"""Tries of an operator's change, which fails without effect if the model's warm-up forward fails."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers by kind and code; ``counts`` of events, and of ``violations``, which must never happen."""

    answers: Counter[tuple[str, str]]
    counts: Counter[str]
    violations: Counter[str]
    seconds: float


class Chaos:
    """One run: the callers, and the disturbances at their time."""

    def __init__(self, stage: Stage, app: RunningApp, unreliable: Unreliable) -> None:
        self._stage = stage
        self._app = app
        self._unreliable = unreliable
        self._callers = Callers(app.port, stage.oracle, stage.mixture, stage.digests)
        self._callers.served = frozenset({stage.digests[stage.versions[0]]})
        self.counts: Counter[str] = Counter()

    async def run(self, requests: int) -> Outcome:
        """Sends at least ``requests`` requests, and more until every disturbance has happened."""
        started = time.monotonic()
        await self._settled(Counter())
        tasks = self._app.tasks()
        self._unreliable.reliable = False
        async with asyncio.TaskGroup() as group:
            disturbing = group.create_task(self._disturb(requests))
            group.create_task(self._callers.send(lambda sent: sent < requests or not disturbing.done()))
        self._unreliable.reliable = True
        for route in ROUTES:
            if connection := await self._callers.ask(self._stage.mixture.right(route)):
                connection.hang_up()
        await self._look_around(tasks)
        await self._count()
        return Outcome(self._callers.answers, self.counts, self._callers.violations, time.monotonic() - started)

    async def _count(self) -> None:
        """Counts cache hits and failed forwards, which show that the run has tested them."""
        total = await self._metrics()
        for tier in ("memory", "redis"):
            hits = total(f'agentprm_score_cache_lookups_total{{result="hit",tier="{tier}"}}')
            self.counts[f"scores found in {tier}"] = int(hits)
        for kind, failures in self._unreliable.failures.items():
            self.counts[f"forwards that raised {kind}"] = failures

    async def _disturb(self, requests: int) -> None:
        """Disturbs the service at fixed shares of the requests; two swaps happen while Redis is down."""
        first, second = self._stage.versions
        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (0.15, self._kill_redis),
            (0.25, lambda: self._swap(second)),
            (0.35, self._start_redis),
            (0.4, self._load_and_unload_another),
            (0.55, self._kill_redis),
            (0.65, lambda: self._swap(first)),
            (0.75, self._start_redis),
            (0.85, self._swap_to_and_fro),
        ]
        for share, act in acts:
            await self._callers.reached(int(share * requests))
            await act()

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._stage.redis.kill)
        self.counts["Redis killed"] += 1

    async def _start_redis(self) -> None:
        await asyncio.to_thread(self._stage.redis.start)
        self.counts["Redis started again"] += 1

    async def _swap(self, reference: str) -> None:
        """Swaps the model; after the reply only the new version may answer."""
        new = self._stage.digests[reference]
        await asyncio.to_thread(self._stage.store.set_alias, "demo", reference)
        self._callers.served |= {new}
        models = await self._change("/admin/reload", {})
        self._callers.served = frozenset({new})
        if [model["digest"] for model in models if model["default"]] != [new]:
            self._callers.violations[f"a reload does not serve {reference} by default"] += 1

    async def _swap_to_and_fro(self) -> None:
        """Swaps several times, since a request is only for a moment between finding its model and the queue."""
        first, second = self._stage.versions
        for _ in range(SWAPS):
            await self._swap(second)
            await self._swap(first)

    async def _load_and_unload_another(self) -> None:
        both = await self._change("/admin/load", {"model": OTHER_MODEL})
        remaining = await self._change("/admin/unload", {"model": OTHER_MODEL})
        if (len(both), len(remaining)) != (2, 1):
            self._callers.violations["loading and unloading do not serve one model more and one less"] += 1

    async def _change(self, path: str, body: dict[str, str]) -> list[dict[str, Any]]:
        """Makes an operator's change and returns the models that are served afterwards."""
        headers = {"authorization": f"Bearer {self._stage.admin_key}", "connection": "close"}
        request = request_bytes("POST", path, json.dumps(body).encode(), headers)
        for _ in range(ATTEMPTS):
            async with asyncio.timeout(PATIENCE):
                connection = await self._callers.connect()
                answer = await connection.ask(request)
            connection.hang_up()
            self.counts[f"{path} answered {answer.status}"] += 1
            if answer.status == 200:
                models: list[dict[str, Any]] = read_json(answer)["models"]
                return models
        self._callers.violations[f"{path} answered {answer.status} time and again"] += 1
        return []

    async def _look_around(self, tasks: Counter[str]) -> None:
        """Checks that nothing is left of the requests once all are answered."""
        for what, wrong in {**await self._settled(tasks), **self._harm_to_caches()}.items():
            if wrong:
                self._callers.violations[f"afterwards {what}"] += 1

    async def _settled(self, tasks: Counter[str]) -> dict[str, object]:
        """Waits for the service to be idle, at most ``PATIENCE`` (a breaker may need 8 s); returns what is not."""
        deadline = time.monotonic() + PATIENCE
        while any((left := await self._unsettled(tasks)).values()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # HTTP offers no event
        return left

    async def _unsettled(self, tasks: Counter[str]) -> dict[str, object]:
        total = await self._metrics()
        more = self._app.tasks() - tasks if tasks else Counter()
        return {
            f"{total('agentprm_queue_tokens'):.0f} tokens are queued": total("agentprm_queue_tokens"),
            "a breaker is open though Redis is well": total("agentprm_score_cache_breaker_state"),
            "the service is not ready": total("agentprm_ready") != 1,
            f"there are more tasks than before: {dict(more)}": more,
        }

    async def _metrics(self) -> Callable[[str], float]:
        """Reads ``/metrics``; returns a function that sums the samples whose line starts with a text."""
        async with asyncio.timeout(PATIENCE):
            connection = await self._callers.connect()
            answer = await connection.ask(request_bytes("GET", "/metrics", headers={"connection": "close"}))
        connection.hang_up()
        lines = answer.body.decode().splitlines()
        return lambda name: sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def _harm_to_caches(self) -> dict[str, object]:
        caches = self._unreliable.prefix_caches
        for cache in caches:
            cache.check()
        return {
            f"{len(caches)} engines are in memory, one is served": len(caches) != 1,
            "something is pending in a prefix cache": any(cache.pending() for cache in caches),
            "something is locked in a prefix cache": any(
                node.locks for cache in caches for node in cache.root.children.values()
            ),
            "a prefix cache is over its budget": any(cache.used_bytes > cache.max_bytes for cache in caches),
        }


def run(requests: int, seed: int, directory: Path, failure_share: float = FAILURE_SHARE) -> Outcome:
    """Runs the service in this process under chaos."""
    threads = set(threading.enumerate())
    unreliable, complaints = Unreliable(seed, failure_share), Complaints()
    with complaints.recording(), unreliable.loading(), _stage(directory, requests, seed) as stage:
        unreliable.reliable = True
        app = create_app(load_models(stage.settings)[0], stage.settings)
        with serving(app) as running_app, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(Chaos(stage, running_app, unreliable).run(requests))
    outcome.violations.update({f"logged, {what}": count for what, count in complaints.kinds.items()})
    if left := set(threading.enumerate()) - threads:
        outcome.violations[f"threads are left: {sorted(thread.name for thread in left)}"] += 1
    return outcome


@contextmanager
def _stage(directory: Path, requests: int, seed: int) -> Iterator[Stage]:
    stage = Stage(directory, trajectories=min(300, 40 + requests // 20), seed=seed)
    with running(stage.redis):
        yield stage


def table(outcome: Outcome) -> str:
    kinds: dict[str, list[str]] = {}
    for (kind, code), count in outcome.answers.most_common():
        kinds.setdefault(kind, []).append(f"{code} {count}")
    lines = [f"{kind:22} {', '.join(codes)}" for kind, codes in kinds.items()]
    lines += ["", *(f"{what}: {count}" for what, count in sorted(outcome.counts.items()))]
    return "\n".join([*lines, f"{outcome.answers.total()} requests in {outcome.seconds:.0f} s"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes everything around a real service fail.")
    parser.add_argument("--requests", type=int, default=10_000, help="least number of requests")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        outcome = run(options.requests, options.seed, Path(directory))
    print(table(outcome))
    for violation, times in outcome.violations.most_common():
        print(f"VIOLATED {times} times: {violation}.")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
