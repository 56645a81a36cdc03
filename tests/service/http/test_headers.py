"""Headers of requests for scores, and the turns of their bodies."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager

import pytest

from service.http.limits import SMALL_BODY
from service.http.loop_turns import LoopTurns
from tests.service.echo_app import item, serving
from tests.service.http.test_bad_requests import refusal


@pytest.mark.parametrize(("headers", "what"), [({}, "is missing"), ({"content-type": "text/plain"}, "is not JSON")])
def test_a_body_without_the_right_content_type_is_told_which_header(headers: dict[str, str], what: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", content=b'{"items": []}', headers=headers)
            assert refusal(reply) == (422, "invalid")
            assert reply.json()["error"]["message"] == f"header.content-type: it {what}; send application/json"

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
def test_every_content_type_of_json_is_taken(kind: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            content = json.dumps({"items": [item()]})
            reply = await client.post("/score_step", content=content, headers={"content-type": kind})
            assert reply.status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "place"), [({"x-deadline-ms": "soon"}, "x-deadline-ms"), ({"x-priority": "soon"}, "x-priority")]
)
def test_a_wrong_header_is_named(headers: dict[str, str], place: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", json={"items": [item()]}, headers=headers)
            places = [error["loc"] for error in reply.json()["error"]["details"]["errors"]]
            assert {tuple(loc[:2]) for loc in places} == {("header", place)}

    asyncio.run(scenario())


def test_large_bodies_take_turns_in_their_caller_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    callers: list[str] = []
    turn = LoopTurns.turn

    def noted(turns: LoopTurns, caller: str) -> AbstractAsyncContextManager[None]:
        callers.append(caller)
        return turn(turns, caller)

    async def scenario() -> None:
        monkeypatch.setattr(LoopTurns, "turn", noted)
        async with serving() as client:
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200
            assert callers == []
            assert (await client.post("/score_step", json={"items": [item("t" * SMALL_BODY)]})).status_code == 413

    asyncio.run(scenario())
    assert set(callers) == {"127.0.0.1"}
