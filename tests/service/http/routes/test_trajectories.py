"""What ``/score_trajectory`` alone offers: one number for all steps, and chats that end in turns of others."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.service.echo_app import item, proposal, serving

CHAT = [
    {"role": "user", "content": "Craft."},
    {"role": "assistant", "content": "look"},
    {"role": "tool", "content": "a table"},
    {"role": "assistant", "content": "go"},
]


def answer(route: str, body: dict[str, Any]) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with serving() as client:
            return await client.post(route, json=body)

    return asyncio.run(scenario())


@pytest.mark.parametrize("how", ["last", "min", "mean", "product"])
def test_each_result_has_the_aggregate_that_the_request_asks_for(how: str) -> None:
    body = {"aggregate": how, "items": [item("Craft.", "look", "go"), item("Craft.", "stay")]}
    for result in answer("/score_trajectory", body).json()["results"]:
        promises = [step["promise"] for step in result["steps"]]
        product = promises[0] * (promises[1] if len(promises) == 2 else 1)
        mean = sum(promises) / len(promises)
        expected = {"last": promises[-1], "min": min(promises), "mean": mean, "product": product}
        assert result["aggregate"] == pytest.approx(expected[how], rel=1e-12)


def test_without_the_field_results_have_no_aggregate() -> None:
    (result,) = answer("/score_trajectory", {"items": [item()]}).json()["results"]
    assert "aggregate" not in result


@pytest.mark.parametrize("route", ["/score_step", "/rank_actions"])
def test_the_other_routes_refuse_an_aggregate(route: str) -> None:
    body = item() if route == "/score_step" else proposal("go")
    reply = answer(route, {"aggregate": "min", "items": [body]})
    assert reply.status_code == 422
    assert "aggregate" in reply.json()["error"]["message"]


def test_an_unknown_aggregate_is_refused_with_the_known_ones() -> None:
    reply = answer("/score_trajectory", {"aggregate": "max", "items": [item()]})
    assert reply.status_code == 422
    assert "'last', 'min', 'mean' or 'product'" in reply.json()["error"]["message"]


@pytest.mark.parametrize("role", ["tool", "user"])
def test_a_chat_that_ends_in_turns_of_others_is_scored_at_its_last_assistant_turn(role: str) -> None:
    more = [{"role": role, "content": "two doors"}, {"role": role, "content": "one window"}]
    whole, ended = answer("/score_trajectory", {"items": [{"messages": [*CHAT, *more]}, {"messages": CHAT}]}).json()[
        "results"
    ]
    assert whole["steps"] == ended["steps"]
    assert len(whole["steps"]) == 2
    assert answer("/score_step", {"items": [{"messages": [*CHAT, *more]}]}).status_code == 422


def test_a_chat_without_an_assistant_turn_has_no_step_to_score() -> None:
    reply = answer("/score_trajectory", {"items": [{"messages": CHAT[:1]}]})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == "a chat needs at least one assistant message: each is a step"
    assert reply.json()["error"]["details"] == {"item": 0}
