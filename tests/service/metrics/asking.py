"""Requests that end in every way, and what ``/metrics`` says then."""

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import httpx

from service.engine.contract import SequenceScores
from service.http.middleware.asgi import Message, Scope
from tests.service.echo_app import GatedEngine, item, pass_time, proposal
from tests.service.score_cache.caching import samples


async def exposition(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


def series(text: str) -> set[str]:
    """Names and labels of all samples."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


async def total(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    found = samples(await exposition(client), f"agentprm_{name}")
    assert found, name
    return sum(value for has, value in found if labels.items() <= has.items())


async def ask_and_leave(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    """Sends a request whose client leaves while its forward runs."""
    body = json.dumps({"items": [item("leaves")]}).encode()
    entered = asyncio.Event()
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Message:
        if (message := next(messages, None)) is not None:
            return message
        await entered.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there")

    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    scope: Scope = {
        "type": "http", "method": "POST", "path": "/score_step", "raw_path": b"/score_step", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "client": ("here", 1), "server": ("echo", 80),
        "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    async with engine.held():
        leaving: asyncio.Task[None] = asyncio.create_task(transport.app(scope, receive, send))  # type: ignore[arg-type]
        await engine.entered()
        entered.set()
        await leaving


async def ask_all_kinds(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    """Sends requests that end in every way that is possible without a broken part."""
    body = {"items": [item("Craft.", "look", "go")]}
    for route in ("/score_step", "/score_trajectory"):
        assert (await client.post(route, json=body)).status_code == 200
    assert (await client.post("/rank_actions", json={"items": [proposal("a", "b")]})).status_code == 200
    wrong: list[tuple[str, Any, int]] = [
        ("/score_step", {"items": []}, 422),
        ("/score_step", {**body, "model": "nobody"}, 404),
        ("/score_step", {"items": [item("t" * 3000)]}, 413),
        ("/made/up", body, 404),
        ("/models", body, 405),
    ]
    for route, content, status in wrong:
        assert (await client.post(route, json=content)).status_code == status
    await ask_and_leave(client, engine)
    async with engine.held():
        headers = {"x-deadline-ms": "5000"}
        late = asyncio.create_task(client.post("/score_step", json={"items": [item("late")]}, headers=headers))
        await engine.entered()
        pass_time(5.0)
        assert (await late).status_code == 504


class NaNEngine(GatedEngine):
    """An engine that scores its warm-up, and from then on one NaN per sequence."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        scored = super().score(token_ids, reads)
        return scored if len(self.calls) == 1 else [SequenceScores([*raw[:-1], math.nan], new) for raw, new in scored]
