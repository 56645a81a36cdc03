"""Replies are tied to requests: whatever is not the reply to this request is no score."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agentprm import State, Step, Trajectory, TrajectoryItem, UnexpectedReply
from tests.agentprm.scripted import MODEL, STEP, USAGE, ScriptedService, reply

TORCH = Trajectory("craft a torch", (Step("You have 1 coal", "get 1 stick"), Step("Got it", "craft 1 torch")))
BED = Trajectory("craft a bed", (Step("", "get 3 wool"),))
SCORE = {"promise": 0.6, "progress": None, "raw": 0.4}
CHAT = [
    {"role": "user", "content": "craft a torch"},
    {"role": "assistant", "content": "get 1 stick"},
    {"role": "user", "content": "Got it"},
    {"role": "assistant", "content": "craft 1 torch"},
]


def ids(service: ScriptedService, *requests: int) -> list[list[str]]:
    return [[item["id"] for item in json.loads(service.requests[at].content)["items"]] for at in requests]


def ranking(*entries: tuple[int, int, float]) -> dict[str, Any]:
    ranked = [{**SCORE, "index": index, "rank": rank, "promise": promise} for index, rank, promise in entries]
    return {"id": None, "ranking": ranked, "usage": USAGE}


def scored(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"id": None, "steps": steps, "usage": USAGE}


def test_every_item_has_an_id_that_is_the_same_in_equal_requests_only(service: ScriptedService) -> None:
    service.answers = [reply(STEP, STEP), reply(STEP, STEP), reply(STEP, STEP), reply(STEP, STEP), reply(STEP, STEP)]
    service.call("score_step", [TORCH, BED])
    service.call("score_step", [TORCH, BED])
    service.call("score_step", [BED, TORCH])
    service.call("score_step", [TORCH, BED], model="demo@1")
    service.call("score_step", [TORCH, TORCH])
    first, again, *others = ids(service, 0, 1, 2, 3, 4)
    assert first == again
    assert service.requests[0].content == service.requests[1].content
    assert all(len(set(sent)) == 2 for sent in (first, *others))
    assert all(set(first).isdisjoint(sent) for sent in others)
    assert all(len(one) <= 64 for sent in (first, *others) for one in sent)


def test_the_callers_own_ids_come_back_even_if_they_are_equal(service: ScriptedService) -> None:
    own = [TrajectoryItem.model_validate({"id": "x", "messages": CHAT}) for _ in range(2)]
    service.answers = [reply(STEP, STEP, STEP)]
    results = service.call("score_step", [*own, TORCH]).results
    assert [result.id for result in results] == ["x", "x", None]
    assert "x" not in ids(service, 0)[0]


def test_the_reply_to_another_request_is_no_score(service: ScriptedService) -> None:
    """Two processes that read one connection get such replies, and callers of a proxy that mixes them up."""
    service.answers = [reply(STEP), reply(STEP)]
    service.call("score", BED)
    ((of_bed,),) = ids(service, 0)
    service.answers = [reply({**STEP, "id": of_bed})]
    with pytest.raises(UnexpectedReply, match="other ids than those that were sent") as caught:
        service.call("score", TORCH)
    assert caught.value.status == 200
    assert service.slept == []


@pytest.mark.parametrize("swap", [lambda of_items: of_items[::-1], lambda of_items: [None, *of_items[1:]]])
def test_results_in_another_order_or_without_an_id_are_no_scores(
    service: ScriptedService, swap: Callable[[list[Any]], list[Any]]
) -> None:
    service.answers = [reply(STEP, STEP)]
    service.call("score_step", [TORCH, BED])
    wrong = [{**STEP, "id": one} for one in swap(ids(service, 0)[0])]
    body = {"model": MODEL, "results": wrong}
    service.echo_ids = False
    service.answers = [httpx.Response(200, json=body)]
    with pytest.raises(UnexpectedReply):
        service.call("score_step", [TORCH, BED])


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (ranking((0, 0, 0.9)), "each of 2 candidates once"),
        (ranking((0, 0, 0.9), (1, 1, 0.8), (2, 2, 0.7)), "each of 2 candidates once"),
        (ranking((0, 0, 0.9), (0, 1, 0.8)), "each of 2 candidates once"),
        (ranking((1, 0, 0.9), (2, 1, 0.8)), "each of 2 candidates once"),
        (ranking((0, 1, 0.9), (1, 0, 0.8)), "do not count from 0"),
        (ranking((0, 1, 0.9), (1, 2, 0.8)), "do not count from 0"),
        (ranking((0, 0, 0.8), (1, 1, 0.9)), "best promise"),
        (ranking(), "each of 2 candidates once"),
    ],
)
def test_a_ranking_holds_each_candidate_once_the_best_first(
    service: ScriptedService, result: dict[str, Any], why: str
) -> None:
    service.answers = [reply(result)]
    with pytest.raises(UnexpectedReply, match=why):
        service.call("rank", State("craft a torch"), ["get 1 stick", "look"])


@pytest.mark.parametrize("trajectory", [TORCH, CHAT], ids=["steps", "chat"])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_as_many_steps_are_scored_as_were_sent(service: ScriptedService, trajectory: Any, steps: int) -> None:
    service.answers = [reply(scored(*[SCORE] * steps)), reply(scored(SCORE, SCORE))]
    with pytest.raises(UnexpectedReply, match=f"it scores {steps} steps where 2 were sent"):
        service.call("score_trajectory", [trajectory])
    assert len(service.call("score_trajectory", [trajectory]).results[0].steps) == 2
