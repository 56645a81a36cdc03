"""Client process for cache hits: sends one request over and over on several connections and parses no reply.

A general client costs several times what a hit costs the server, so its latencies would be its own. Orders come from
stdin and the outcome goes to stdout, both as JSON.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

MOST_SECONDS: Final = 3600
OK: Final = b"HTTP/1.1 200 "
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Outcome:
    """Latencies, and the distinct replies; equal requests should have a single one."""

    seconds: float = 0.0
    latency_ms: list[float] = field(default_factory=list)
    replies: set[bytes] = field(default_factory=set)


async def run(orders: dict[str, Any]) -> Outcome:
    """Sends ``orders["requests"]`` requests over ``orders["concurrency"]`` connections.

    Raises:
        RuntimeError: a reply is no 200.
        TimeoutError: the requests take longer than ``MOST_SECONDS``.
    """
    address, outcome = urlsplit(orders["url"]), Outcome()
    content = json.dumps(orders["body"]).encode()
    head = f"POST {orders['path']} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
    turns = iter(range(orders["requests"]))
    connected = [await asyncio.open_connection(address.hostname, address.port) for _ in range(orders["concurrency"])]
    started = perf_counter()
    try:
        async with asyncio.timeout(MOST_SECONDS):
            await asyncio.gather(*(_call(*streams, request, turns, outcome) for streams in connected))
        outcome.seconds = perf_counter() - started
    finally:
        for _, writer in connected:
            writer.close()
            await writer.wait_closed()
    return outcome


async def _call(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    turns: Iterator[int],
    outcome: Outcome,
) -> None:
    for _ in turns:
        started = perf_counter()
        writer.write(request)
        reply = await _read_reply(reader)
        outcome.latency_ms.append(1000 * (perf_counter() - started))
        outcome.replies.add(reply)


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    if not head.startswith(OK) or length is None:
        raise RuntimeError(f"a reply that is no hit: {head!r}")
    return await reader.readexactly(int(length[1]))


def main() -> None:
    outcome = asyncio.run(run(json.load(sys.stdin)))
    replies = [json.loads(reply) for reply in outcome.replies]
    json.dump({"seconds": outcome.seconds, "latency_ms": outcome.latency_ms, "replies": replies}, sys.stdout)


if __name__ == "__main__":
    main()
