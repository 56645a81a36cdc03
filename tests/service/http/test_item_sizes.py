"""An item's characters are counted before anything is made of its texts."""

import asyncio
from typing import Any

import httpx
import pytest

from agentprm.wire.size import MAX_VALUES
from tests.service.echo_app import item, proposal, serving

LIMIT = 64 * 2000  # of the echo model, whose context has 2,000 tokens


def call(arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


def chat(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "t"}, *turns]}


def ask(path: str, *items: dict[str, Any]) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with serving() as client:
            return await client.post(path, json={"items": list(items)})

    return asyncio.run(scenario())


def refused_details(reply: httpx.Response) -> Any:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (413, "too_long")
    return error["details"]


@pytest.mark.parametrize(
    ("path", "large", "characters"),
    [
        ("/score_step", item("t" * LIMIT), LIMIT + len("saw 0look")),
        ("/score_trajectory", item("t", "a" * LIMIT), 1 + LIMIT + len("saw 0")),
        ("/score_step", chat({"role": "assistant", "content": "a" * LIMIT}), LIMIT + 1),
        ("/score_step", chat({"role": "assistant", "content": [{"type": "text", "text": "a" * LIMIT}]}), LIMIT + 1),
        ("/score_step", chat(call("0," * LIMIT)), 2 * LIMIT + 2),
        ("/score_step", chat({"role": "assistant", "content": "a", "reasoning": "r" * LIMIT}), LIMIT + 2),
        (
            "/score_step",
            chat({"role": "assistant", "content": [{"type": "thinking", "thinking": "r" * LIMIT}]}),
            LIMIT + 1,
        ),
        ("/score_step", chat({"role": "user", "name": "n" * 900, "content": "c" * LIMIT}), LIMIT + 901),
        ("/score_step", chat({"role": "tool", "tool_call_id": "i" * 900, "content": "c" * LIMIT}), LIMIT + 901),
        ("/score_step", chat(call({"a": "0" * LIMIT})), LIMIT + len('t{"a": ""}f')),
        (
            "/score_step",
            {**chat(), "tools": [{"function": {"name": "f" * LIMIT}}]},
            LIMIT + len('t{"function": {"name": ""}}'),
        ),
        ("/rank_actions", {"task": "t", "observation": "o" * LIMIT, "candidates": ["a"]}, LIMIT + 2),
        ("/rank_actions", {"task": "t", "candidates": ["a", "b" * LIMIT, "c"]}, LIMIT + 1),
        ("/rank_actions", {"task": "t", "candidates": ["a", call("b" * LIMIT)]}, LIMIT + 2),
    ],
)
def test_an_item_over_the_limit_is_413_and_nothing_is_made_of_any(
    path: str, large: dict[str, Any], characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("service.http.items.to_history", fail)
    monkeypatch.setattr("service.http.items.to_proposal", fail)
    small = item() if path != "/rank_actions" else proposal("go")
    details = refused_details(ask(path, small, large))
    assert details == {"item": 1, "characters": characters, "limit": LIMIT}


def test_candidates_count_one_by_one_with_their_history() -> None:
    history = "t" * 1000
    reply = ask("/rank_actions", {"task": history, "candidates": ["a" * 400, "b" * 400] * 30})
    assert reply.status_code == 200
    characters = 1000 + (LIMIT - 1000) + 1
    details = refused_details(ask("/rank_actions", {"task": history, "candidates": ["a" * (LIMIT - 999)]}))
    assert details["characters"] == characters


def test_values_within_tool_arguments_count_for_all_items_together() -> None:
    arguments = "[" + "0," * (MAX_VALUES // 3) + "0]"
    ranked = {"task": "t", "candidates": [call(arguments)]}
    assert refused_details(ask("/rank_actions", *[ranked] * 3)) == {"limit": MAX_VALUES}
    assert refused_details(ask("/rank_actions", ranked))["tokens"] > 2000, "alone it is too long for the model only"


def test_models_publish_the_limit() -> None:
    async def scenario() -> Any:
        async with serving() as client:
            return (await client.get("/models")).json()["models"][0]["limits"]["characters"]

    assert asyncio.run(scenario()) == LIMIT
