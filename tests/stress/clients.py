"""Uses the client as frameworks do: forked processes, process pools, thousands of tasks, hundreds of threads.

    python -m tests.stress.clients

The server is a real process with the bundled checkpoint. The exit status is 1 if an aim is missed.
"""

import argparse
import asyncio
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Final

from agentprm import AgentPRMError, AsyncClient, Client, State, Step, Trajectory, UnexpectedReply
from service.settings import CHECKPOINTS
from testbed.processes import PATIENCE, Server, serve_agentprm

PARENTS: Final = 40
CHILDREN: Final = 8
CALLS: Final = 10
"""Calls of each child: 3,200 of all children of all parents."""
TASKS: Final = 2000
THREADS: Final = 200
BATCH: Final = 64
ROUNDS: Final = 3
MOST_TIMES: Final = 5.0
"""Time of single calls that are made together, in times of the same items in batches."""
TASK: Final = "\n".join(
    ["Crafting commands:"]
    + [f"craft 4 {wood}_planks using 1 {wood}_logs" for wood in ("acacia", "birch", "oak", "spruce", "jungle")]
    + ["", "Goal: craft acacia_door. Actions allowed: 6."]
)
FORK: Final = multiprocessing.get_context("fork")
SPAWN: Final = multiprocessing.get_context("spawn")

Make = Callable[[int], Trajectory]


def short(number: int) -> Trajectory:
    return State(f"Craft item {number}.").take(f"get {number} bamboo")


def usual(number: int) -> Trajectory:
    """A trajectory of three steps whose last one no other has."""
    steps = (Step("", "get 2 acacia_logs"), Step("Got 2 acacia_logs. 5 left.", "get 1 acacia_door"))
    return State(TASK, steps, "Could not find acacia_door. 4 left.").take(f"craft {number} acacia_planks")


@dataclass(frozen=True, slots=True)
class Together:
    """Seconds for the same number of items, in batches and as calls that are made together."""

    batches: float
    calls: float
    client_cpu: float
    failed: Counter[str]

    @property
    def times(self) -> float:
        return self.calls / self.batches


@dataclass(frozen=True, slots=True)
class Outcome:
    forked: Counter[str]
    pool: Counter[str]
    tasks: dict[str, list[Together]]
    threads: Together


def run(server: Server, *, parents: int = PARENTS, tasks: int = TASKS, rounds: int = ROUNDS) -> Outcome:
    kinds: Sequence[Make] = (short, usual)
    fresh = iter(range(1000, sys.maxsize, 2 * tasks))
    return Outcome(
        forked_calls(server.url, parents),
        pool_of_processes(server.url),
        {make.__name__: [in_tasks(server.url, make, tasks, next(fresh)) for _ in range(rounds)] for make in kinds},
        in_threads(server.url, usual, tasks, next(fresh)),
    )


def forked_calls(url: str, parents: int) -> Counter[str]:
    """Counts the replies to calls of forked children, each parent with a client that has made a call."""
    with Client(url) as client:
        known = [client.score(short(number)).raw for number in range(CHILDREN * CALLS)]
    counted: Counter[str] = Counter()
    for _ in range(parents):
        with Client(url) as client:
            counted[outcome_of(client, 0, known[0])] += 1
            pipes = [fork(client, range(child * CALLS, (child + 1) * CALLS), known) for child in range(CHILDREN)]
            for pipe in pipes:
                counted.update(pipe.recv() if pipe.poll(PATIENCE) else {"no answer": CALLS})
            counted[outcome_of(client, 1, known[1])] += 1
    return counted


def fork(client: Client, numbers: range, known: list[float]) -> "Connection[Any, Any]":
    receiver, sender = FORK.Pipe(duplex=False)

    def child() -> None:
        sender.send(Counter(outcome_of(client, number, known[number]) for number in numbers))

    FORK.Process(target=child, daemon=True).start()
    sender.close()
    return receiver


def outcome_of(client: Client, number: int, known: float) -> str:
    try:
        return "right" if client.score(short(number)).raw == known else "wrong score"
    except AgentPRMError as error:
        return f"{type(error).__name__}: {error}"[:100]


def pool_of_processes(url: str) -> Counter[str]:
    """Counts what comes home from a pool of processes in which every second call fails."""
    with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
        calls = [pool.submit(score_or_fail, url, number) for number in range(20)]
        return Counter(type(call.exception(PATIENCE) or call.result()).__name__ for call in calls)


def score_or_fail(url: str, number: int) -> float:
    address = url if number % 2 == 0 else f"{url}/docs"  # not a path of the service
    with Client(address) as client:
        try:
            return client.score(short(number)).promise
        except AgentPRMError as error:
            raise UnexpectedReply(str(error), status=404) from error


def in_tasks(url: str, make: Make, number: int, first: int) -> Together:
    async def scenario() -> Together:
        async with AsyncClient(url, max_retries=5) as client:
            batches = await seconds(in_batches(client, [make(first + at) for at in range(number)]))
            trajectories = [make(first + number + at) for at in range(number)]
            before = cpu_seconds()
            started = time.monotonic()
            ends = await asyncio.gather(*map(client.score, trajectories), return_exceptions=True)
            return Together(batches, time.monotonic() - started, cpu_seconds() - before, failures(ends))

    return asyncio.run(scenario())


async def in_batches(client: AsyncClient, trajectories: list[Trajectory]) -> None:
    for start in range(0, len(trajectories), BATCH):
        await client.score_step(trajectories[start : start + BATCH])


async def seconds(work: Any) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


def in_threads(url: str, make: Make, number: int, first: int) -> Together:
    def score(trajectory: Trajectory) -> object:
        try:
            return client.score(trajectory)
        except AgentPRMError as error:
            return error

    with Client(url, max_retries=5) as client, ThreadPoolExecutor(THREADS) as threads:
        started = time.monotonic()
        for start in range(0, number, BATCH):
            client.score_step([make(first + at) for at in range(start, min(number, start + BATCH))])
        batches, before = time.monotonic() - started, cpu_seconds()
        started = time.monotonic()
        ends = list(threads.map(score, [make(first + number + at) for at in range(number)]))
        return Together(batches, time.monotonic() - started, cpu_seconds() - before, failures(ends))


def failures(ends: Sequence[object]) -> Counter[str]:
    return Counter(f"{type(end).__name__}: {end}"[:100] for end in ends if isinstance(end, BaseException))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def broken(outcome: Outcome) -> list[str]:
    """Returns what is wrong on any machine, however slow or busy."""
    together = [round_ for rounds in outcome.tasks.values() for round_ in rounds]
    not_right = outcome.forked - Counter(right=outcome.forked["right"])
    failed = sum((round_.failed for round_ in together), Counter[str]())
    complaints = {
        f"of {outcome.forked.total()} calls beside forks some were not right: {dict(not_right)}": not_right,
        f"a pool of processes brought home {dict(outcome.pool)}": outcome.pool != Counter(float=10, UnexpectedReply=10),
        f"tasks failed: {dict(failed)}": failed,
        f"threads failed: {dict(outcome.threads.failed)}": outcome.threads.failed,
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


def missed(outcome: Outcome) -> list[str]:
    """Returns what is wrong on a machine with a core for each side."""
    measured = {kind: median(round_.times for round_ in rounds) for kind, rounds in outcome.tasks.items()}
    return [
        f"{kind} items as single calls took {times:.1f} times the time of batches, {MOST_TIMES:g} are allowed"
        for kind, times in measured.items()
        if times > MOST_TIMES
    ]


def table(outcome: Outcome) -> str:
    def line(what: str, round_: Together) -> str:
        return f"{what:24} {round_.batches:10.2f} {round_.calls:10.2f} {round_.times:8.1f} {round_.client_cpu:12.2f}"

    return "\n".join(
        [
            f"calls beside forks: {dict(outcome.forked)}",
            f"home from a pool of processes: {dict(outcome.pool)}",
            "",
            f"{'':24} {'batches, s':>10} {'single, s':>10} {'times':>8} {'client CPU, s':>12}",
            *(line(f"tasks, {kind} items", round_) for kind, rounds in outcome.tasks.items() for round_ in rounds),
            line(f"{THREADS} threads, usual items", outcome.threads),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Uses the client as frameworks do.")
    parser.add_argument("--parents", type=int, default=PARENTS, help=f"forking clients, of {CHILDREN} children each")
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with serve_agentprm(CHECKPOINTS, "demo", {"AGENTPRM_SCORE_CACHE_ITEMS": "0"}) as server:
        outcome = run(server, parents=options.parents, tasks=options.tasks, rounds=options.rounds)
    print(table(outcome))
    complaints = broken(outcome) + missed(outcome)
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
