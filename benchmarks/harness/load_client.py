"""Client process of the load tests: a closed loop of several callers.

Orders come from stdin and the outcome goes to stdout, both as JSON. The client runs until every body is answered, or
with ``endless`` until SIGTERM; each further round of bodies then has another first word, so that no server has seen it.
A 429 is retried after the time it names, and counted.
"""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Final

import httpx

Body = dict[str, Any]

JSON: Final = {"content-type": "application/json"}


@dataclass(slots=True)
class Outcome:
    """Latency and raw scores of each request by its number, and how many requests were refused with 429."""

    seconds: float = 0.0
    latency_ms: dict[int, float] = field(default_factory=dict)
    raw: dict[int, list[float]] = field(default_factory=dict)
    refused: int = 0


async def run(orders: dict[str, Any]) -> Outcome:
    """Sends the bodies from ``orders["concurrency"]`` callers."""
    outcome = Outcome()
    bodies = enumerate(_endless(orders["bodies"]) if orders["endless"] else orders["bodies"])
    limits = httpx.Limits(max_connections=orders["concurrency"])
    async with httpx.AsyncClient(base_url=orders["url"], timeout=600, limits=limits, headers=JSON) as client:
        callers = [
            asyncio.create_task(_call(client, orders["path"], bodies, orders["pause"], outcome))
            for _ in range(orders["concurrency"])
        ]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, callers)
        started = perf_counter()
        for ended in await asyncio.gather(*callers, return_exceptions=True):
            if ended is not None and not isinstance(ended, asyncio.CancelledError):
                raise ended
        outcome.seconds = perf_counter() - started
    return outcome


async def _call(
    client: httpx.AsyncClient, path: str, bodies: Iterator[tuple[int, Body]], pause: float, outcome: Outcome
) -> None:
    for number, body in bodies:
        content = json.dumps(body).encode()
        started = perf_counter()
        while (reply := await client.post(path, content=content)).status_code == 429:
            outcome.refused += 1
            await asyncio.sleep(float(reply.headers.get("retry-after", 1)))
        reply.raise_for_status()
        outcome.latency_ms[number] = 1000 * (perf_counter() - started)
        outcome.raw[number] = [raw for result in reply.json()["results"] for raw in _raw(result)]
        await asyncio.sleep(pause)


def _cancel(callers: list[asyncio.Task[None]]) -> None:
    for caller in callers:
        caller.cancel()


def _raw(result: dict[str, Any]) -> list[float]:
    if "ranking" in result:
        return [entry["raw"] for entry in sorted(result["ranking"], key=lambda entry: entry["index"])]
    return [step["raw"] for step in result.get("steps", [result])]


def _endless(bodies: list[Body]) -> Iterator[Body]:
    yield from bodies
    for number in itertools.count():
        body = bodies[number % len(bodies)]
        yield {"items": [{**item, "task": f"w{number % 8000} {item['task']}"} for item in body["items"]]}


def main() -> None:
    outcome = asyncio.run(run(json.load(sys.stdin)))
    ordered = {
        name: [by[number] for number in sorted(by)]
        for name, by in (("latency_ms", outcome.latency_ms), ("raw", outcome.raw))
    }
    json.dump({**asdict(outcome), **ordered}, sys.stdout)


if __name__ == "__main__":
    main()
