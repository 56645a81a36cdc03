"""With ``on_error: "item"`` a wrong item gets an error of its own, and the others the scores that they get alone."""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from agentprm import wire
from agentprm.errors import InvalidRequest, TooLong
from agentprm.wire.per_item import MAX_ERRORS_OF_ITEM, MAX_REFUSED_ITEMS
from tests.service.echo_app import BrokenEngine, item, metric, proposal, serving

MARKER = "XYZZY-the-agents-own-words"
USER = {"role": "user", "content": "Craft."}
GOOD = [
    item("Craft.", "look", "go", id="good 0"),
    item("Craft.", "stay"),
    {"messages": [USER, {"role": "assistant", "content": "go"}]},
]
BAD = {
    "of another type": (MARKER, InvalidRequest),
    "null": (None, InvalidRequest),
    "without steps": ({"id": "x", "task": MARKER, "steps": []}, InvalidRequest),
    "with an empty action": ({"id": "x", "task": MARKER, "steps": [{"action": ""}] * 50}, InvalidRequest),
    "with an unknown field": (item(MARKER, outcome=MARKER), InvalidRequest),
    "with very many unknown fields": (item(MARKER, **{str(name): MARKER for name in range(300)}), InvalidRequest),
    "with an id that no reply can hold": (item(MARKER, id="\ud800"), InvalidRequest),
    "of both forms": ({**item(MARKER), "messages": [USER]}, InvalidRequest),
    "that ends in the wrong turn": ({"id": "x", "messages": [USER]}, InvalidRequest),
    "with an empty turn": ({"messages": [USER, {"role": "assistant"}]}, InvalidRequest),
    "with an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, InvalidRequest),
    "without a task": ({"messages": [{"role": "assistant", "content": MARKER}]}, InvalidRequest),
    "of too many tokens": (item(MARKER, "look " * 500, id="x"), TooLong),
    "of too many characters": (item("t" * 64 * 2000, "look", id="x"), TooLong),
}


def ask(route: str, *bodies: dict[str, Any]) -> list[httpx.Response]:
    async def scenario() -> list[httpx.Response]:
        async with serving() as client:
            return [
                await client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
                for body in bodies
            ]

    return asyncio.run(scenario())


def per_item(items: Iterable[Any]) -> dict[str, Any]:
    return {"on_error": "item", "items": list(items)}


@pytest.mark.parametrize("route", ["/score_step", "/score_trajectory"])
@pytest.mark.parametrize(("bad", "error"), BAD.values(), ids=BAD)
def test_a_bad_item_among_good_ones_is_an_error_in_its_place(
    route: str, bad: Any, error: type[InvalidRequest], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        mixed, alone, whole = ask(
            route, per_item([GOOD[0], bad, *GOOD[1:]]), {"items": GOOD}, {"items": [GOOD[0], bad, *GOOD[1:]]}
        )
    assert (mixed.status_code, alone.status_code, whole.status_code) == (200, 200, error.status)
    wrong = mixed.json()["results"].pop(1)
    assert wrong["error"]["code"] == error.code
    assert wrong["error"]["details"]["item"] == 1
    assert wrong["id"] == (bad.get("id") if isinstance(bad, dict) and bad.get("id") == "x" else None)
    assert [result for result in mixed.json()["results"] if "error" not in result] == alone.json()["results"]
    assert MARKER not in mixed.text
    assert MARKER not in caplog.text
    message = whole.json()["error"]["message"]
    assert wrong["error"]["message"] == message or message.startswith("body: ")  # the body cannot be read as a whole


def test_a_bad_proposal_among_good_ones_is_an_error_in_its_place() -> None:
    good = [proposal("go", "stay"), proposal("look", id="b")]
    bad = [
        proposal(),
        proposal("go", ""),
        proposal(*["go"] * 65),
        proposal("go", {"role": "user", "content": "x"}),
        proposal("go", "x" * 3000),
        {**item("Craft.", "look"), "sample": {"n": 2}},
        {"messages": [USER, {"role": "assistant", "content": "go"}], "candidates": ["stay"]},
    ]
    mixed, alone = ask("/rank_actions", per_item([good[0], *bad, good[1]]), {"items": good})
    first, *errors, last = mixed.json()["results"]
    assert [first, last] == alone.json()["results"]
    codes = [each["error"]["code"] for each in errors]
    assert codes == ["invalid", "invalid", "too_long", "invalid", "too_long", "invalid", "invalid"]
    assert [each["error"]["details"]["item"] for each in errors] == [1, 2, 3, 4, 5, 6, 7]
    wire.RankActionsOutcomes.model_validate_json(mixed.content)


def test_a_request_of_bad_items_only_is_answered_with_their_errors() -> None:
    (reply,) = ask("/score_step", per_item([None, {"id": "b"}]))
    results = wire.ScoreStepOutcomes.model_validate_json(reply.content).results
    assert [result.id for result in results] == [None, "b"]
    assert all(isinstance(result, wire.ItemError) for result in results)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"on_error": "item", "items": []}, 422),
        ({"on_error": "item", "items": None}, 422),
        ({"on_error": "skip", "items": [None]}, 422),
        ({"on_error": "item", "items": [None], "sort": 1}, 422),
        ({"on_error": "item", "items": [None], "model": "none"}, 404),
        ({"on_error": "item", "items": [None] * 65}, 413),
        ({"on_error": "item", "items": [None], "deadline_ms": 0}, 422),
        ({"on_error": "request", "items": [item(), None]}, 422),
        ({"items": [item(), None], "on_error": "request"}, 422),
    ],
)
def test_what_concerns_the_whole_request_refuses_it(body: dict[str, Any], status: int) -> None:
    (reply,) = ask("/score_step", body)
    assert reply.status_code == status
    assert "error" in reply.json()


def test_the_field_may_stand_behind_the_items() -> None:
    (reply,) = ask("/score_step", {"items": [None, item()], "on_error": "item"})
    assert ["error" in result for result in reply.json()["results"]] == [True, False]


def test_a_failing_engine_is_no_error_of_one_item() -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            engine.failure = RuntimeError()
            assert (await client.post("/score_step", json=per_item([item(), None]))).status_code == 500

    asyncio.run(scenario())


def test_errors_of_items_are_counted_by_code_and_the_request_as_answered() -> None:
    async def scenario() -> None:
        async with serving() as client:
            bad = [None, {}, item("t", "look " * 500)]
            await client.post("/score_step", json=per_item([item(), *bad]))
            counted = [
                await metric(client, f'agentprm_item_errors_total{{code="{code}",model="echo@1"}}')
                for code in ("invalid", "too_long", "upstream_failed")
            ]
            assert counted == [2, 1, 0]
            answered = 'agentprm_requests_total{code="200",model="echo@1",route="/score_step"}'
            assert await metric(client, answered) == 1

    asyncio.run(scenario())


def test_many_wrong_items_cost_a_bounded_text() -> None:
    fields = {f"{name}-{'x' * 200}": 0 for name in range(40)}
    (reply,) = ask("/score_step", per_item([{**item(), **fields}] * 64))
    assert reply.status_code == 200
    assert len(reply.content) < 64 * MAX_ERRORS_OF_ITEM * 400
    assert len(reply.json()["results"][0]["error"]["details"]["errors"]) == MAX_ERRORS_OF_ITEM


def test_wrong_items_are_told_apart_up_to_a_bound() -> None:
    (reply,) = ask("/score_step", per_item([None] * (MAX_REFUSED_ITEMS + 1)))
    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == f"body: more than {MAX_REFUSED_ITEMS} wrong items"
