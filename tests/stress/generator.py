"""The load generator, run as a process: orders from stdin and samples of all requests to stdout, both as JSON.

Closed loop: so many callers, each with its next request when it has its answer. Open loop: requests come at random
moments of a given rate, however the earlier ones fare. A request's work is new: its task begins with words that no
other request has, so nothing that the service holds answers it.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from random import Random
from time import perf_counter, process_time
from typing import Final, Literal, NamedTuple

import uvloop

from model_store.format.store import Store
from service.settings import CHECKPOINTS
from tests.stress.connection import Answer, Connection, IllFormed, request_bytes

HANG_SECONDS: Final = 20.0
"""A request without an answer after this time counts as hung."""
WORDS: Final = 40
"""Words of a segment. A task and three steps make about 290 tokens, the same for every request."""
CANDIDATES: Final = 4
BODIES: Final = 64
DEADLINES_MS: Final = (20, 1000)
PLACE: Final = b"@first-words@"


@dataclass(frozen=True, slots=True)
class Orders:
    """One run of the generator; ``pace`` is the callers of a closed loop, or the requests a second of an open one."""

    host: str
    port: int
    loop: Literal["closed", "open"]
    pace: float
    seconds: float
    deadline_share: float = 0.0
    seed: int = 0


class Sample(NamedTuple):
    """One request; times in seconds since the start, ``status`` 0 if no answer came.

    ``late`` is the delay after its due time, which is the generator's own fault.
    """

    status: int
    sent: float
    ended: float
    late: float
    deadline_ms: int
    retry_after: str


@dataclass(slots=True)
class Report:
    """Samples of all requests, and the generator's CPU seconds."""

    samples: list[Sample] = field(default_factory=list)
    cpu_seconds: float = 0.0


class Generator:
    """Sends requests at the pace of its orders and records a sample of each."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._random = Random(orders.seed)
        self._requests = _requests(self._random, orders.deadline_share)
        self._idle: list[Connection] = []
        self._started = 0.0
        self.report = Report()

    async def run(self) -> None:
        """Sends all requests; returns when the last is answered or given up."""
        self._started, cpu_before = perf_counter(), process_time()
        async with asyncio.TaskGroup() as group:
            if self._orders.loop == "closed":
                for _ in range(int(self._orders.pace)):
                    group.create_task(self._call_in_turn())
            else:
                await self._offer(group)
        self.report.cpu_seconds = process_time() - cpu_before
        for connection in self._idle:
            connection.hang_up()

    @property
    def _now(self) -> float:
        return perf_counter() - self._started

    async def _call_in_turn(self) -> None:
        while (now := self._now) < self._orders.seconds:
            await self._request(due=now)

    async def _offer(self, group: asyncio.TaskGroup) -> None:
        due = 0.0
        while (due := due + self._random.expovariate(self._orders.pace)) < self._orders.seconds:
            await asyncio.sleep(max(0.0, due - self._now))
            group.create_task(self._request(due))

    async def _request(self, due: float) -> None:
        request, deadline_ms = next(self._requests)
        sent = self._now
        answer = await self._answer(request)
        status, retry_after = (answer.status, answer.headers.get("retry-after", "")) if answer else (0, "")
        self.report.samples.append(Sample(status, sent, self._now, sent - due, deadline_ms, retry_after))

    async def _answer(self, request: bytes) -> Answer | None:
        try:
            async with asyncio.timeout(HANG_SECONDS):
                connection = await self._connection()
                answer = await connection.ask(request)
        except (TimeoutError, OSError, IllFormed):
            return None
        self._idle.append(connection)
        return answer

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
            connection.hang_up()
        return await Connection.open(self._orders.host, self._orders.port)


def _requests(random: Random, deadline_share: float) -> Iterator[tuple[bytes, int]]:
    """Yields endless requests of equal cost, each with its deadline in milliseconds (0: none)."""
    words = vocabulary()
    bodies = [_body(random, words) for _ in range(BODIES)]
    for number in count():
        path, body = bodies[number % BODIES]
        deadline_ms = random.randint(*DEADLINES_MS) if random.random() < deadline_share else 0
        headers = {"x-priority": "interactive"} | ({"x-deadline-ms": str(deadline_ms)} if deadline_ms else {})
        first = " ".join(random.choices(words, k=4))
        yield request_bytes("POST", path, body.replace(PLACE, first.encode()), headers), deadline_ms


def _body(random: Random, words: list[str]) -> tuple[str, bytes]:
    """Returns a route and a body of one item: a task and three steps, or candidates as long as the last action."""

    def text(length: int = WORDS) -> str:
        return " ".join(random.choices(words, k=length))

    steps = [{"observation": text(), "action": text()} for _ in range(3)]
    history = {"task": f"{PLACE.decode()} {text()}", "steps": steps}
    path = random.choice(("/score_step", "/score_trajectory", "/rank_actions"))
    if path == "/rank_actions":
        last = steps.pop()
        candidates = [text(WORDS // CANDIDATES) for _ in range(CANDIDATES)]
        history |= {"observation": last["observation"], "candidates": candidates}
    return path, json.dumps({"items": [history]}).encode()


def vocabulary() -> list[str]:
    """Returns words that are each one token of the bundled checkpoint."""
    path = Store(CHECKPOINTS).resolve("demo").path / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    return [word for word in tokenizer["model"]["vocab"] if word.isalnum()]


def main() -> None:
    generator = Generator(Orders(**json.load(sys.stdin)))
    uvloop.run(generator.run())
    json.dump(asdict(generator.report), sys.stdout)


if __name__ == "__main__":
    main()
