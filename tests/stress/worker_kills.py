"""Kills worker processes again and again under load: scores stay right, every request is answered, workers come back.

    python -m tests.stress.worker_kills --kills 3

The servers are real processes with the bundled checkpoint and two workers, or one worker of split layers. Callers ask
without a pause while single processes, all of them, or one that just starts again are killed. Every score is compared
with that before the first kill. The exit status is 1 if anything is wrong, with a sentence each.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from service.settings import CHECKPOINTS
from testbed.processes import START_SECONDS, Server, serve_agentprm, wait_until, worker_processes

DEVICES: Final = ("cpu,cpu", "cpu+cpu")
SETTINGS: Final = {
    "AGENTPRM_SCORE_CACHE_ITEMS": "0",
    "AGENTPRM_PREFIX_CACHE_BYTES": str(2 * 1024**2),  # small, so that both trees evict
    "AGENTPRM_LOG_LEVEL": "error",
}
CALLERS: Final = 4
ITEMS: Final = 60
HANG_SECONDS: Final = 30.0
TOLERANCE: Final = 1e-4
RECOVERY: Final = 5.0, 5.0
"""Times that a start without load took, and seconds, within which all workers must run again."""
WAYS: Final = ("one", "all", "starting")


@dataclass
class Outcome:
    """Counts of answers by status (0: none within HANG_SECONDS), and seconds until all workers ran again."""

    device: str
    start_seconds: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    without_time: int = 0
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    restarts: int = 0

    @property
    def recovery_bound(self) -> float:
        times, seconds = RECOVERY
        return times * self.start_seconds + seconds


class Callers:
    """Threads that ask for the same items in random order, and compare each score with the expected one."""

    def __init__(self, server: Server, outcome: Outcome) -> None:
        self._url = f"{server.url}/score_step"
        self._outcome = outcome
        self._items = items(random.Random(0))
        with httpx.Client(timeout=HANG_SECONDS) as client:
            self._expected = [promise(self._ask(client, number)) for number in range(ITEMS)]
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def asking(self) -> Iterator[None]:
        with ThreadPoolExecutor(CALLERS) as threads:
            callers = [threads.submit(self._call, random.Random(seed)) for seed in range(CALLERS)]
            try:
                yield
            finally:
                self._stopped.set()
        for caller in callers:
            caller.result()

    def _call(self, chance: random.Random) -> None:
        with httpx.Client(timeout=HANG_SECONDS) as client:
            while not self._stopped.is_set():
                number = chance.randrange(ITEMS)
                try:
                    reply = self._ask(client, number)
                except httpx.TransportError:
                    self._count(0)
                    continue
                self._count(reply.status_code, reply, self._expected[number])
                if reply.status_code != 200:
                    self._stopped.wait(0.05)  # else refusals take the processor from the restart

    def _ask(self, client: httpx.Client, number: int) -> httpx.Response:
        return client.post(self._url, json={"items": [self._items[number]]})

    def _count(self, status: int, reply: httpx.Response | None = None, expected: float = 0.0) -> None:
        with self._lock:
            self._outcome.answers[status] += 1
            if reply is not None and status == 200:
                self._outcome.wrong += abs(promise(reply) - expected) > TOLERANCE
            if reply is not None and status == 503:
                self._outcome.without_time += not reply.headers.get("retry-after", "").isdigit()


def promise(reply: httpx.Response) -> float:
    found: float = reply.raise_for_status().json()["results"][0]["promise"]
    return found


def items(chance: random.Random) -> list[dict[str, Any]]:
    """Returns trajectories that share tasks and first steps, of 1 to 6 steps."""
    made = []
    for number in range(ITEMS):
        steps = [
            {"observation": f"You see {chance.randrange(3)} logs.", "action": f"craft {chance.randrange(4)} planks"}
            for _ in range(chance.randint(1, 6))
        ]
        made.append({"task": f"Craft {number % 5} chests.", "steps": steps})
    return made


def run(device: str, kills: int, seed: int) -> Outcome:
    """Serves on this device, kills ``kills`` times under load, and waits for recovery each time."""
    outcome, chance = Outcome(device), random.Random(seed)
    with serve_agentprm(CHECKPOINTS, "demo", {**SETTINGS, "AGENTPRM_DEVICE": device}) as server:
        outcome.start_seconds = server.metric("agentprm_model_load_duration_seconds")
        callers = Callers(server, outcome)
        with callers.asking():
            for number in range(kills):
                outcome.recoveries.append(kill_and_wait(server, WAYS[number % len(WAYS)], chance))
        outcome.restarts = round(server.metric("agentprm_worker_restarts_total"))
    return outcome


def kill_and_wait(server: Server, way: str, chance: random.Random) -> tuple[str, float]:
    """Kills workers in this way under load; returns it with the seconds until all ran again."""
    before = worker_processes(server.pid)
    restarts = server.metric("agentprm_worker_restarts_total")
    killed = before if way == "all" else [chance.choice(before)]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    if way == "starting":
        wait_until(lambda: set(worker_processes(server.pid)) - set(before), "no restart began", START_SECONDS)
        for pid in set(worker_processes(server.pid)) - set(before):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: recovered(server, restarts), "not all workers ran again", 2 * START_SECONDS, pause=0.1)
    return way, time.monotonic() - started


def recovered(server: Server, restarts_before: float) -> bool:
    return (
        server.metric("agentprm_worker_restarts_total") > restarts_before
        and server.metric("agentprm_workers", state="down") == 0
        and server.metric("agentprm_ready") == 1
    )


def broken(outcome: Outcome) -> list[str]:
    strange = sorted(set(outcome.answers) - {0, 200, 503})
    slow = [f"{seconds:.1f} s" for _, seconds in outcome.recoveries if seconds > outcome.recovery_bound]
    complaints = {
        f"{outcome.wrong} scores are wrong": outcome.wrong,
        f"{outcome.answers[0]} requests were not answered within {HANG_SECONDS:.0f} s": outcome.answers[0],
        f"answers with status {strange}: only 200 and 503 are due": strange,
        f"{outcome.without_time} answers with 503 have no Retry-After in seconds": outcome.without_time,
        f"workers ran again only after {', '.join(slow)}; due are {outcome.recovery_bound:.1f} s": slow,
        "nothing was scored": not outcome.answers[200],
    }
    return [f"{outcome.device}: {complaint}" for complaint, wrong in complaints.items() if wrong]


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [f"{'device':10} {'start':>7} {'200':>7} {'503':>7} {'other':>6} {'wrong':>6} {'restarts':>9}  recovery, s"]
    for outcome in outcomes:
        other = outcome.answers.total() - outcome.answers[200] - outcome.answers[503]
        recoveries = ", ".join(f"{way} {seconds:.1f}" for way, seconds in outcome.recoveries)
        rows.append(
            f"{outcome.device:10} {outcome.start_seconds:6.1f}s {outcome.answers[200]:7d} {outcome.answers[503]:7d} "
            f"{other:6d} {outcome.wrong:6d} {outcome.restarts:9d}  {recoveries}"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills workers of real servers.")
    parser.add_argument("--kills", type=int, default=3, help="times that workers of each server are killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = [run(device, options.kills, options.seed) for device in DEVICES]
    print(table(outcomes))
    complaints = [complaint for outcome in outcomes for complaint in broken(outcome)]
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
