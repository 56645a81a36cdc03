"""``overflow`` over HTTP: what the reply says of a history that was cut, and who refuses it."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.service.echo_app import MANIFEST, PrefixEchoEngine, item, loaded, serving

LONG = item("Craft.", *["look around " * 8] * 40)  # 2,000 tokens of context hold 18 such steps
STATE = {**LONG, "observation": "two doors", "candidates": ["left", "right " * 20]}
CHAT_TURNS = [
    {"role": "user", "content": "Craft."},
    *[
        turn
        for step in range(40)
        for turn in (
            {
                "role": "assistant",
                "content": "look around " * 4,
                "tool_calls": [{"id": f"{step}", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "saw nothing " * 4, "tool_call_id": f"{step}"},
        )
    ],
]
ROUTES = {
    "/score_step": LONG,
    "/score_trajectory": LONG,
    "/rank_actions": STATE,
}


async def ask(client: httpx.AsyncClient, route: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    return await client.post(route, json={"items": [body | more]})


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("overflow", ["drop_oldest", "shorten_observations"])
def test_a_history_that_is_too_long_is_scored_if_the_item_allows_a_cut(route: str, overflow: str) -> None:
    body = ROUTES[route]
    if overflow == "shorten_observations":
        steps = [{"observation": "saw nothing " * 40, "action": "look"}] * 12
        body = body | {"steps": steps}

    async def scenario() -> None:
        async with serving() as client:
            assert (await ask(client, route, body)).status_code == 413
            assert (await ask(client, route, body, overflow="error")).status_code == 413
            reply = await ask(client, route, body, overflow=overflow)
            assert reply.status_code == 200, reply.text
            (result,) = reply.json()["results"]
            usage = result["usage"]
            assert usage["cut_tokens"] > 0
            assert ("dropped_steps" in usage) == (overflow == "drop_oldest")
            if route != "/score_trajectory":
                assert usage["tokens"] <= 2 * MANIFEST.context_length

    asyncio.run(scenario())


def test_a_history_that_fits_has_the_same_reply_whatever_its_overflow() -> None:
    async def scenario() -> None:
        async with serving() as client:
            plain = (await ask(client, "/score_step", item())).json()
            for overflow in ("error", "drop_oldest", "shorten_observations"):
                assert (await ask(client, "/score_step", item(), overflow=overflow)).json() == plain
            assert not {"dropped_steps", "cut_tokens"} & plain["results"][0]["usage"].keys()

    asyncio.run(scenario())


def test_the_three_routes_agree_on_a_cut_history() -> None:
    async def scenario() -> None:
        async with serving() as client:
            steps = LONG["steps"]
            last = (await ask(client, "/score_step", LONG, overflow="drop_oldest")).json()["results"][0]
            every = (await ask(client, "/score_trajectory", LONG, overflow="drop_oldest")).json()["results"][0]
            state = {
                "task": "Craft.",
                "steps": steps[:-1],
                "observation": steps[-1]["observation"],
                "candidates": [steps[-1]["action"]],
            }
            ranked = (await ask(client, "/rank_actions", state, overflow="drop_oldest")).json()["results"][0]
            assert last["raw"] == every["steps"][-1]["raw"] == ranked["ranking"][0]["raw"]
            assert last["progress"] == ranked["ranking"][0]["progress"]
            assert last["usage"]["dropped_steps"] == every["usage"]["dropped_steps"]
            assert len(every["steps"]) == len(steps)
            nulls = [place for place, step in enumerate(every["steps"]) if step["progress"] is None]
            assert nulls[0] == 0
            assert 1 < len(nulls) < len(steps) / 4

    asyncio.run(scenario())


def test_the_prefix_cache_serves_a_cut_history_that_grows() -> None:
    async def scenario() -> None:
        async with serving(loaded(PrefixEchoEngine(100_000))) as client:
            computed = []
            for end in range(25, 40):
                body = LONG | {"steps": LONG["steps"][:end], "overflow": "drop_oldest"}
                (result,) = (await ask(client, "/score_step", body)).json()["results"]
                assert result["usage"]["dropped_steps"] > 0
                computed.append(result["usage"]["computed"])
            assert sum(tokens < 250 for tokens in computed) >= 10  # a step has 112 tokens; four blocks, so few moves

    asyncio.run(scenario())


@pytest.mark.parametrize("overflow", ["drop_oldest", "shorten_observations"])
def test_a_chat_that_is_too_long_keeps_its_task_and_its_last_turns(overflow: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            chat = {"messages": CHAT_TURNS[:-1]}
            if overflow == "shorten_observations":
                chat = {"messages": [*CHAT_TURNS[:2], CHAT_TURNS[2] | {"content": "x" * 5000}, CHAT_TURNS[1]]}
            assert (await ask(client, "/score_step", chat)).status_code == 413
            (result,) = (await ask(client, "/score_step", chat, overflow=overflow)).json()["results"]
            assert result["usage"]["cut_tokens"] > 0
            assert result["progress"] is not None

    asyncio.run(scenario())


def test_one_item_may_allow_a_cut_and_another_not() -> None:
    async def scenario() -> None:
        async with serving() as client:
            body = {"on_error": "item", "items": [LONG, LONG | {"overflow": "drop_oldest"}]}
            refused, scored = (await client.post("/score_step", json=body)).json()["results"]
            assert refused["error"]["code"] == "too_long"
            assert scored["usage"]["dropped_steps"] > 0

    asyncio.run(scenario())


def test_an_unknown_overflow_is_refused_with_the_known_ones() -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await ask(client, "/score_step", item(), overflow="truncate")
            assert reply.status_code == 422
            assert "'drop_oldest' or 'shorten_observations'" in reply.json()["error"]["message"]

    asyncio.run(scenario())
