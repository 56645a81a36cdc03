"""Requests refused before their body is read, and that refusals cost other callers nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.api_keys import new_key
from tests.service.echo_app import GatedEngine, item, loaded, metric, serving
from tests.service.http.routes.test_under_load import queued_tokens

BODY = {"items": [item()]}
FULL = 22
"""Tokens of ``BODY``."""


async def unread() -> AsyncIterator[bytes]:
    """A body that may be read only once at most: a server may have read it with the headers."""
    yield b"{"
    raise AssertionError("the body was read")


def score(client: httpx.AsyncClient, **how: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/score_step", **{"json": BODY, **how}))


def test_over_the_limit_of_requests_the_answer_is_429_and_a_place_is_free_again_after_a_reply() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_requests=2) as client:
            async with engine.held():
                admitted = [score(client)]
                await engine.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=1)
                refused = await client.post("/rank_actions", content=unread())
                assert refused.status_code == 429
                assert refused.json()["error"]["code"] == "overloaded"
                assert refused.json()["error"]["details"] == {"limit": 2}
                assert refused.headers["retry-after"] == "1"
                assert (await client.get("/models")).status_code == 200
                assert (await client.get("/ready")).status_code == 200
            assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
            assert (await score(client)).status_code == 200
            assert await metric(client, 'agentprm_rejected_total{reason="overloaded"}') == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"{", b'{"items": []}'])
def test_a_request_that_fails_gives_its_place_back(body: bytes) -> None:
    async def scenario() -> None:
        async with serving(max_requests=1) as client:
            for _ in range(3):
                assert (await client.post("/score_step", content=body)).status_code == 422
            assert (await score(client)).status_code == 200

    asyncio.run(scenario())


def test_once_the_queue_has_refused_nothing_is_read_until_something_has_drained() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_queue_tokens=FULL) as client:
            async with engine.held():
                admitted = [score(client)]
                await engine.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=FULL)
                assert (await score(client)).status_code == 429
                refused = await client.post("/score_step", content=unread())
                assert refused.status_code == 429
                assert refused.json()["error"]["details"]["limit"] == FULL
            assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
            assert (await score(client)).status_code == 200

    asyncio.run(scenario())


def test_while_another_models_queue_has_room_the_body_is_read() -> None:
    """A request that arrives while one model's queue is full may be for another model."""

    async def scenario() -> None:
        busy = GatedEngine()
        async with serving(loaded(busy), loaded(GatedEngine(), "idle"), max_queue_tokens=FULL) as client:
            async with busy.held():
                admitted = [score(client)]
                await busy.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=FULL)
                assert (await score(client)).status_code == 429
                other = score(client, json={"model": "idle", **BODY})
                await asyncio.sleep(0)
            assert (await other).status_code == 200
            await asyncio.gather(*admitted)

    asyncio.run(scenario())


def test_a_key_that_has_sent_all_it_may_is_told_when_to_come_back_and_no_other_is(tmp_path: Path) -> None:
    (few, limited), (many, unlimited) = new_key("few", rate="2/h"), new_key("many")
    (tmp_path / "keys").write_text(f"{limited}\n{unlimited}\n")

    async def scenario() -> None:
        async with serving(api_keys_file=tmp_path / "keys") as client:
            mine = {"authorization": f"Bearer {few}"}
            assert [(await score(client, headers=mine)).status_code for _ in range(2)] == [200, 200]
            refused = await client.post("/rank_actions", content=unread(), headers=mine)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limited"
            assert refused.json()["error"]["details"] == {"requests": 2, "seconds": 3600.0}
            assert 1700 < int(refused.headers["retry-after"]) <= 1800
            assert (await client.get("/models", headers=mine)).status_code == 200, "it costs no forward"
            theirs = {"authorization": f"Bearer {many}"}
            assert [(await score(client, headers=theirs)).status_code for _ in range(4)] == [200] * 4
            assert (
                'agentprm_rejected_total{reason="rate_limited"} 1'
                in (await client.get("/metrics", headers=theirs)).text
            )

    asyncio.run(scenario())
