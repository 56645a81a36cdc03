"""Sends bodies that are wrong in costly ways: the service must stay quick for everybody else, and keep its memory.

    python -m tests.stress.hostile_bodies

The server is a real process with the bundled checkpoint. Every body of ``tests.stress.hostile`` is sent alone while
another client asks ``/health``; then twelve callers send costly ones at once beside a small request. The exit status
is 1 if an aim is missed, with a sentence each.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from service.settings import CHECKPOINTS
from testbed.processes import Server, serve_agentprm
from tests.stress.hostile import ALONE, BYTES, Hostile, hostile_bodies

CALLERS: Final = 12
SECONDS: Final = 20
"""Seconds that the callers send their bodies."""
HEALTH_SECONDS: Final = 0.25
SLOWER: Final = 4.0
MEMORY_FACTOR: Final = 6
PATIENCE: Final = 60.0
SMALL: Final[dict[str, Any]] = {"items": [{"task": "Craft a stick.", "steps": [{"action": "get 2 bamboo"}]}]}
JSON: Final = {"content-type": "application/json"}


class Alone(NamedTuple):
    """One body, sent while nothing else is asked but ``/health``."""

    kind: str
    status: int
    seconds: float
    reply_bytes: int
    health: float
    """The longest that ``/health`` took meanwhile."""


class Together(NamedTuple):
    """Costly bodies at once."""

    bodies: int
    idle: float
    """p95 of a small request without them, in seconds."""
    small: float
    health: float
    grown_mb: float
    cpu_ms: float
    """CPU time of the server for each body and the small requests beside it."""

    @property
    def slowdown(self) -> float:
        return self.small / self.idle


async def run(server: Server, senders: Executor) -> tuple[list[Alone], Together]:
    bodies = list(hostile_bodies())
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        await send_alone(client, senders, bodies[0])  # starts the sending process
        alone = [await send_alone(client, senders, body) for body in bodies]
        costliest = sorted(range(len(bodies)), key=lambda index: alone[index].health)[-CALLERS:]
        return alone, await send_together(client, server, senders, [bodies[index] for index in costliest])


async def send_alone(client: httpx.AsyncClient, senders: Executor, body: Hostile) -> Alone:
    async with sampling(client, "GET", "/health") as health:
        sent = asyncio.get_running_loop().run_in_executor(senders, send_once, str(client.base_url), body)
        status, seconds, reply_bytes = await sent
    return Alone(body.kind, status, seconds, reply_bytes, max(health, default=0.0))


async def send_together(
    client: httpx.AsyncClient, server: Server, senders: Executor, bodies: Sequence[Hostile]
) -> Together:
    async with sampling(client, "POST", "/score_step") as idle:
        await asyncio.sleep(SECONDS / 4)
    before, cpu = memory_mb(server.pid, "VmRSS"), server.cpu_seconds()
    async with sampling(client, "POST", "/score_step") as small, sampling(client, "GET", "/health") as health:
        sent = await asyncio.get_running_loop().run_in_executor(senders, send_all, server.url, bodies, SECONDS)
    cpu_ms = 1000 * (server.cpu_seconds() - cpu) / sent
    return Together(sent, p95(idle), p95(small), p95(health), memory_mb(server.pid, "VmHWM") - before, cpu_ms)


def send_once(url: str, body: Hostile) -> tuple[int, float, int]:
    """Sends a body from another process. Returns the status, the seconds and the size of the reply.

    The status is 0 if the service closed the connection while the rest of the body was still on its way.
    """
    started = time.perf_counter()
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)) as connection:
        try:
            connection.request("POST", body.path, body.content, JSON)
        except ConnectionError:
            return 0, time.perf_counter() - started, 0
        reply = connection.getresponse()
        return reply.status, time.perf_counter() - started, len(reply.read())


def send_all(url: str, bodies: Sequence[Hostile], seconds: float) -> int:
    """Sends each body again and again, all at once. Returns how many were sent."""
    until = time.perf_counter() + seconds

    def send(body: Hostile) -> int:
        sent = 0
        while time.perf_counter() < until:
            send_once(url, body)
            sent += 1
        return sent

    with ThreadPoolExecutor(len(bodies)) as threads:
        return sum(threads.map(send, bodies))


def memory_mb(pid: int, name: str) -> float:
    """Returns the memory of a process now (``VmRSS``) or at its peak (``VmHWM``)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


@asynccontextmanager
async def sampling(client: httpx.AsyncClient, method: str, path: str) -> AsyncIterator[list[float]]:
    """Asks again and again until the block ends; the list has the seconds of each answer."""
    seconds: list[float] = []

    async def ask() -> None:
        while True:
            started = time.perf_counter()
            await client.request(method, path, json=SMALL if method == "POST" else None)
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(ask())
    try:
        yield seconds
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def p95(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=20)[-1]


def missed(alone: Sequence[Alone], together: Together) -> list[str]:
    """Returns a sentence for each aim that is missed."""
    allowed = MEMORY_FACTOR * CALLERS * BYTES / 1024**2
    strange = sorted({body.status for body in alone if not body.kind.startswith(ALONE)} - {0, 413, 422})
    health = p95([body.health for body in alone])
    complaints = {
        f"answers with {strange}": strange,
        f"an error of {max(body.reply_bytes for body in alone)} bytes": any(b.reply_bytes > 40_000 for b in alone),
        f"/health takes {health * 1000:.0f} ms (p95) beside one body": health > HEALTH_SECONDS,
        f"/health p95 is {together.health * 1000:.0f} ms beside {CALLERS} bodies": together.health > HEALTH_SECONDS,
        f"a small request is {together.small / together.idle:.1f} times slower": together.small
        > SLOWER * together.idle,
        f"the server grew by {together.grown_mb:.0f} MB, {allowed:.0f} are allowed": together.grown_mb > allowed,
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


def table(alone: Sequence[Alone], together: Together) -> str:
    slowest = sorted(alone, key=lambda body: -body.health)[:15]
    return "\n".join(
        [
            f"{len(alone)} bodies one after another; those beside which /health took longest:",
            *(
                f"{body.kind:66} {body.status} {body.seconds * 1000:6.0f} ms, /health {body.health * 1000:5.0f} ms"
                for body in slowest
            ),
            "",
            f"{CALLERS} callers with the costliest, {together.bodies} bodies in {SECONDS} s:",
            f"small request p95 {together.small * 1000:.1f} ms, without them {together.idle * 1000:.1f} ms",
            f"CPU time of the server {together.cpu_ms:.1f} ms a body",
            f"/health p95 {together.health * 1000:.1f} ms, memory grew by {together.grown_mb:.0f} MB",
        ]
    )


def main() -> int:
    # Another process sends the bodies, so that their cost here delays no measurement.
    with (
        serve_agentprm(CHECKPOINTS, "demo") as server,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as senders,
    ):
        alone, together = asyncio.run(run(server, senders))
    print(table(alone, together))
    complaints = missed(alone, together)
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
