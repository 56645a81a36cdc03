"""Sends valid but huge texts: a small request beside them must hardly notice.

    python -m tests.stress.huge_texts --rounds 4

The server is a real process with the bundled checkpoint. For each kind of text one caller sends twelve bodies at once,
every two seconds, while another caller asks for a small score every 20 ms. A request that takes longer counts for those
that could not be sent meanwhile. Idle times are taken before each kind, so the ratio is one of the same minute. The
exit status is 1 if anything is wrong, with a sentence each.
"""

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, Final
from urllib.parse import urlsplit

from service.settings import CHECKPOINTS
from testbed.processes import Server, serve_agentprm

CONNECTIONS: Final = 12
BODY_BYTES: Final = 4_000_000
ITEMS: Final = 64
ITEM_CHARS: Final = 60_000
"""Characters of an item that is within every limit but that of its tokens."""
SAMPLES: Final = 100
INTERVAL: Final = 0.02
ROUND_SECONDS: Final = 2.0
MAX_TIMES_IDLE: Final = 4.0
MAX_HEALTH_SECONDS: Final = 0.25
MAX_MEMORY: Final = 6.0
"""Most memory beyond the idle server's, in bodies in flight."""
TIMEOUT: Final = 120.0
CALLERS: Final = ("flood", "small")
"""Callers, whose keys are their names."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds at the 95th percentile, and what the huge requests got."""

    kind: str
    idle: float
    beside: float
    health: float
    samples: int
    refused: int
    statuses: dict[int, int]
    seconds: float
    """Mean seconds of a huge request."""

    def faults(self) -> Iterator[str]:
        if self.beside > MAX_TIMES_IDLE * self.idle:
            yield f"{self.kind}: a small request's p95 is {self.beside / self.idle:.1f} times the idle one"
        if self.health > MAX_HEALTH_SECONDS:
            yield f"{self.kind}: the p95 of /health is {self.health * 1000:.0f} ms"
        if self.refused:
            yield f"{self.kind}: {self.refused} small requests were refused"
        if unexpected := self.statuses.keys() - {200, 413, 429}:
            yield f"{self.kind}: unexpected statuses {sorted(unexpected)}"

    def row(self) -> str:
        answers = " ".join(f"{status}:{times}" for status, times in sorted(self.statuses.items()))
        return (
            f"{self.kind:28} {self.idle * 1000:8.2f} {self.beside * 1000:8.2f} {self.beside / self.idle:6.1f}"
            f" {self.health * 1000:8.2f} {self.samples:7} {self.seconds * 1000:9.0f}  {answers}"
        )


@dataclass(slots=True)
class Small:
    """Seconds of each small request that was scored, and of each probe."""

    scores: list[float]
    health: list[float]
    refused: int = 0
    sent: int = 0


HEAD: Final = (
    f"{'text':28} {'idle ms':>8} {'beside':>8} {'times':>6} {'health':>8} {'samples':>7} {'huge ms':>9}  answers"
)


def step_items(texts: Iterator[str]) -> Body:
    return {"items": [{"task": "t", "steps": [{"observation": text, "action": "a"}]} for text in islice(texts, ITEMS)]}


def filled(part: str, chars: int = ITEM_CHARS) -> Iterator[str]:
    """Texts of ``chars`` that repeat ``part``; no two are equal, so that none is known."""
    for index in count():
        head = f"{index} "
        yield head + (part * (chars // len(part)))[: chars - len(head)]


def one_text() -> Body:
    return {"items": [{"task": next(filled("get 1 stick. ", BODY_BYTES - 100)), "steps": [{"action": "a"}]}]}


def tiny_steps() -> Body:
    return {"items": [{"task": "t", "steps": [{"action": "a"}] * (BODY_BYTES // 14)}]}


def candidates() -> Body:
    texts = filled("get 1 stick. ", ITEM_CHARS)
    return {"items": [{"task": "t", "candidates": list(islice(texts, 64))}]}


def long_histories() -> Body:
    """All within the limits: 64 candidates each after 450 tokens."""
    proposed = [f"get {index}" for index in range(64)]
    return {"items": [{"task": next(filled("get 1 ", 1000)), "candidates": proposed} for _ in range(ITEMS)]}


def cut_histories(overflow: str, steps: int) -> Body:
    """Far too long, but allowed to be cut: ten times the context and more."""
    texts = filled("get 1 stick. ", 900)
    histories = ([{"observation": text, "action": "a"} for text in islice(texts, steps)] for _ in range(ITEMS))
    return {"items": [{"task": "t", "overflow": overflow, "steps": history} for history in histories]}


KINDS: Final[dict[str, tuple[str, Callable[[], Body]]]] = {
    "one text of words": ("/score_step", one_text),
    "items of words": ("/score_step", lambda: step_items(filled("get 1 stick. "))),
    "items of one word": ("/score_step", lambda: step_items(filled("a"))),
    "items of signs": ("/score_step", lambda: step_items(filled("."))),
    "items of spaces": ("/score_step", lambda: step_items(filled(" "))),
    "items of Chinese": ("/score_step", lambda: step_items(filled("漢", ITEM_CHARS // 3))),
    "items of combining marks": ("/score_step", lambda: step_items(filled("e\u0301", ITEM_CHARS // 3))),
    "items within 512 tokens": ("/score_step", lambda: step_items(filled("get 1 stick. ", 1_300))),
    "tiny steps": ("/score_trajectory", tiny_steps),
    "steps to drop": ("/score_step", lambda: cut_histories("drop_oldest", 60)),
    "observations to shorten": ("/score_step", lambda: cut_histories("shorten_observations", 5)),
    "steps to drop at each step": ("/score_trajectory", lambda: cut_histories("drop_oldest", 12)),
    "64 huge candidates": ("/rank_actions", candidates),
    "64 x 64 candidates": ("/rank_actions", long_histories),
}


def ask(connection: HTTPConnection, path: str, body: bytes | None, key: str) -> tuple[int, float]:
    """The status and the seconds of one request."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    started = perf_counter()
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    response.read()
    return response.status, perf_counter() - started


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)


def flood(url: str, kind: str, rounds: int) -> list[tuple[int, float]]:
    """Sends twelve bodies at once, ``rounds`` times. Runs in a process of its own."""
    path, make = KINDS[kind]
    body = json.dumps(make(), ensure_ascii=False).encode()

    def send(_: int) -> tuple[int, float]:
        return ask(connect(url), path, body, "flood")

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = list[tuple[int, float]]()
        for _ in range(rounds):
            ends = perf_counter() + ROUND_SECONDS
            answers += threads.map(send, range(CONNECTIONS))
            sleep(max(0.0, ends - perf_counter()))
        return answers


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)]


def small_times(url: str, until: Callable[[int], bool]) -> Small:
    """Asks for small scores and for ``/health`` in turn, until ``until`` is true of the number of both."""
    connection, small = connect(url), Small([], [])
    body = {"items": [{"task": "get 1 stick", "steps": [{"observation": "1 log", "action": "get 1 log"}]}]}
    while not until(small.sent):
        small.sent += 1
        status, seconds = ask(connection, "/score_step", json.dumps(body).encode(), "small")
        if status == 200:
            small.scores += with_unsent(seconds)
        elif status == 429:
            small.refused += 1
        else:
            raise RuntimeError(f"a small request got {status}")
        _, seconds = ask(connection, "/health", None, "small")
        small.health += with_unsent(seconds)
        sleep(INTERVAL)
    return small


def with_unsent(seconds: float) -> Iterator[float]:
    """The seconds of a request, and of those that were due while it ran."""
    while seconds > 0:
        yield seconds
        seconds -= INTERVAL


def measure(server: Server, processes: ProcessPoolExecutor, kind: str, rounds: int) -> Measured:
    idle = small_times(server.url, lambda asked: asked == SAMPLES).scores
    flooding: Future[list[tuple[int, float]]] = processes.submit(flood, server.url, kind, rounds)
    beside = small_times(server.url, lambda asked: asked > 0 and flooding.done())
    answers = flooding.result()
    mean = sum(seconds for _, seconds in answers) / len(answers)
    statuses = dict(Counter(status for status, _ in answers))
    scores = p95(beside.scores)
    return Measured(kind, p95(idle), scores, p95(beside.health), beside.sent, beside.refused, statuses, mean)


def memory_mb(server: Server, field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (the peak) of the server's process."""
    lines = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def run(rounds: int, kinds: list[str]) -> Iterator[str]:
    """Prints a row for each kind, and yields what is wrong."""
    spawn = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn) as processes:
        keys = Path(folder) / "keys"
        keys.write_text("".join(f"{name} score sha256:{sha256(name.encode()).hexdigest()}\n" for name in CALLERS))
        with serve_agentprm(CHECKPOINTS, "demo", {"AGENTPRM_API_KEYS_FILE": str(keys)}) as server:
            small_times(server.url, lambda asked: asked == SAMPLES)
            before = memory_mb(server, "VmRSS")
            print(HEAD)
            for kind in kinds:
                measured = measure(server, processes, kind, rounds)
                print(measured.row(), flush=True)
                yield from measured.faults()
            grown, bodies = memory_mb(server, "VmHWM") - before, CONNECTIONS * BODY_BYTES / 1024**2
    print(
        f"\nmemory: {before:.0f} MB idle, at most {grown:.0f} MB more, {grown / bodies:.1f} times the bodies in flight"
    )
    if grown > MAX_MEMORY * bodies:
        yield f"the server grew by {grown / bodies:.1f} times the bodies in flight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="times that twelve bodies of a kind are sent at once")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these kinds")
    arguments = parser.parse_args()
    faults = list(run(arguments.rounds, arguments.kind or list(KINDS)))
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
