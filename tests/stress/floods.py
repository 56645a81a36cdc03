"""Floods a server as one caller while another caller sends interactive requests: those must not be refused or wait.

    python -m tests.stress.floods --seconds 4

The server is a real process with the bundled checkpoint, two API keys, a short queue and no score cache. Each flood is
a process of its own with a low CPU priority, since floods come from other machines. It retries at once. It runs alone
and beside the other caller, whose requests are also measured while nobody else calls. The exit status is 1 if an aim
is missed, with a sentence each.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

from service.access.api_keys import new_key
from service.settings import CHECKPOINTS
from testbed.processes import Server, serve_agentprm
from tests.stress.connection import Connection, request_bytes
from tests.stress.generator import HANG_SECONDS, vocabulary

SETTINGS: Final = {"AGENTPRM_MAX_QUEUE_TOKENS": "8192", "AGENTPRM_SCORE_CACHE_ITEMS": "0"}
VICTIM_PAUSE: Final = 0.02
"""Seconds between two requests of the other caller."""
MOST_SLOWER: Final = 3.0
"""The other caller's p95 beside a flood, in multiples of its p95 without one."""
LEAST_KEPT: Final = 0.8
"""Items scored for both callers together, as a share of those scored for the flood alone."""
ITEM_WORDS: Final = 280
BODIES: Final = 32
PLACE: Final = b"@first-words@"


@dataclass(frozen=True, slots=True)
class Flood:
    """One caller that sends its next request as soon as it has an answer, on each of its connections."""

    name: str
    connections: int = 12
    route: str = "/score_step"
    priority: str = ""
    """Empty: the route's own."""
    items: int = 4


FLOODS: Final = (
    Flood("bulk", priority="bulk"),
    Flood("interactive"),
    Flood("huge requests", items=24),
    Flood("many connections", connections=200, items=1),
    Flood("whole trajectories", route="/score_trajectory"),
)
VICTIM: Final = Flood("victim", connections=1, items=1)


@dataclass(slots=True)
class Seen:
    """Answers that one caller got, by status, and the seconds of those with 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def scored(self) -> int:
        return self.statuses[200]

    @property
    def p95(self) -> float:
        """Seconds; infinite if nothing was scored."""
        ordered = sorted(self.latencies)
        return ordered[int(0.95 * len(ordered))] if ordered else float("inf")

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.statuses + other.statuses, self.latencies + other.latencies)


@dataclass(slots=True)
class Outcome:
    """One flood: the flood alone and beside the other caller, and that caller without and beside it."""

    flood: Flood
    alone: Seen = field(default_factory=Seen)
    beside: Seen = field(default_factory=Seen)
    quiet: Seen = field(default_factory=Seen)
    victim: Seen = field(default_factory=Seen)

    @property
    def slower(self) -> float:
        return self.victim.p95 / self.quiet.p95

    @property
    def kept(self) -> float:
        items = self.flood.items
        return (items * self.beside.scored + self.victim.scored) / max(1, items * self.alone.scored)


@dataclass(frozen=True, slots=True)
class Caller:
    """One API key at one server."""

    host: str
    port: int
    key: str

    async def send(self, flood: Flood, seconds: float, seed: int, pause: float = 0.0) -> Seen:
        """Sends requests on all connections until the time is over; returns what came back."""
        seen, requests = Seen(), _requests(flood, self.key, seed)
        until = perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(flood.connections):
                group.create_task(self._call(requests, until, pause, seen))
        return seen

    async def _call(self, requests: Iterator[bytes], until: float, pause: float, seen: Seen) -> None:
        connection = await Connection.open(self.host, self.port)
        while (started := perf_counter()) < until:
            async with asyncio.timeout(HANG_SECONDS):
                answer = await connection.ask(next(requests))
            seen.statuses[answer.status] += 1
            if answer.status == 200:
                seen.latencies.append(perf_counter() - started)
            await asyncio.sleep(pause)
        connection.hang_up()


def _requests(flood: Flood, key: str, seed: int) -> Iterator[bytes]:
    """Yields endless requests of equal cost; their tasks begin with words that no other request has."""
    random, words = Random(seed), vocabulary()
    headers = {"authorization": f"Bearer {key}"} | ({"x-priority": flood.priority} if flood.priority else {})
    bodies = [_body(random, words, flood.items) for _ in range(BODIES)]
    for number in count():
        body = bodies[number % BODIES]
        for _ in range(flood.items):
            body = body.replace(PLACE, " ".join(random.choices(words, k=4)).encode(), 1)
        yield request_bytes("POST", flood.route, body, headers)


def _body(random: Random, words: list[str], items: int) -> bytes:
    def item() -> dict[str, Any]:
        half = ITEM_WORDS // 4
        steps = [{key: " ".join(random.choices(words, k=half)) for key in ("observation", "action")} for _ in range(2)]
        return {"task": PLACE.decode(), "steps": steps}

    return json.dumps({"items": [item() for _ in range(items)]}).encode()


def flood_from_elsewhere(caller: Caller, flood: Flood, seconds: float, seed: int) -> Seen:
    """Runs a flood in this process, which gives way to the server for the CPU."""
    os.nice(19 - os.nice(0))
    return asyncio.run(caller.send(flood, seconds, seed))


class Floods:
    """Runs floods against one server in turns with quiet times.

    Args:
        server: the service with two keys.
        keys: the flood's and the other caller's.
        seconds: length of each measurement.
        elsewhere: the process that floods.
    """

    def __init__(self, server: Server, keys: tuple[str, str], seconds: float, elsewhere: ProcessPoolExecutor) -> None:
        address = urlsplit(server.url)
        self._flood, self._victim = (Caller(address.hostname or "", address.port or 0, key) for key in keys)
        self._seconds = seconds
        self._elsewhere = elsewhere
        self._seeds = count()

    async def run(self, flood: Flood, rounds: int = 2) -> Outcome:
        outcome = Outcome(flood)
        for _ in range(rounds):
            outcome.quiet += await self._ask()
            outcome.alone += await self._start(flood)
            beside = self._start(flood)
            outcome.victim += await self._ask()
            outcome.beside += await beside
        return outcome

    def _start(self, flood: Flood) -> "asyncio.Future[Seen]":
        order = (self._flood, flood, self._seconds, next(self._seeds))
        return asyncio.get_running_loop().run_in_executor(self._elsewhere, flood_from_elsewhere, *order)

    async def _ask(self) -> Seen:
        return await self._victim.send(VICTIM, self._seconds, next(self._seeds), VICTIM_PAUSE)


def measure(seconds: float, names: list[str]) -> list[Outcome]:
    """Starts a server and runs the named floods; all of them without names."""
    with tempfile.TemporaryDirectory() as directory:
        (flood, first), (victim, second) = new_key("flood"), new_key("victim")
        keys = Path(directory) / "keys"
        keys.write_text(f"{first}\n{second}\n", encoding="utf-8")
        settings = {**SETTINGS, "AGENTPRM_API_KEYS_FILE": str(keys)}
        spawn = multiprocessing.get_context("spawn")
        with (
            serve_agentprm(CHECKPOINTS, "demo", settings) as server,
            ProcessPoolExecutor(1, mp_context=spawn) as elsewhere,
        ):
            floods = Floods(server, (flood, victim), seconds, elsewhere)
            return [asyncio.run(floods.run(each)) for each in FLOODS if not names or each.name in names]


def missed(outcome: Outcome) -> list[str]:
    victim, name = outcome.victim, outcome.flood.name
    refused = sum(victim.statuses.values()) - victim.scored
    complaints = {
        f"{name}: {refused} of {sum(victim.statuses.values())} requests of the other caller were not scored": refused,
        f"{name}: the other caller's p95 is {outcome.slower:.1f} times that without a flood": (
            not outcome.slower <= MOST_SLOWER
        ),
        f"{name}: only {outcome.kept:.0%} of the items are scored that the flood alone gets scored": (
            outcome.kept < LEAST_KEPT
        ),
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


def table(outcomes: list[Outcome]) -> str:
    heads = ("answers", "429", "p95 ms", "beside", "ratio", "flood 200", "flood 429", "items kept")
    lines = [f"{'flood':20}" + "".join(f"{head:>12}" for head in heads)]
    for each in outcomes:
        values = (
            f"{sum(each.victim.statuses.values())}",
            f"{each.victim.statuses[429]}",
            f"{1000 * each.quiet.p95:.1f}",
            f"{1000 * each.victim.p95:.1f}",
            f"{each.slower:.1f}",
            f"{each.beside.scored}",
            f"{each.beside.statuses[429]}",
            f"{each.kept:.0%}",
        )
        lines.append(f"{each.flood.name:20}" + "".join(f"{value:>12}" for value in values))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Floods a real server as one caller beside another.")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each of the measurements")
    parser.add_argument(
        "names", nargs="*", help=f"floods to run, of {[flood.name for flood in FLOODS]}; all by default"
    )
    options = parser.parse_args()
    outcomes = measure(options.seconds, options.names)
    print(table(outcomes))
    complaints = [complaint for outcome in outcomes for complaint in missed(outcome)]
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
