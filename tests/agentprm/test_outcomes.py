"""Calls with ``on_error="item"``: a result or an error for each item, in the order of the items."""

import json
from typing import Any

import pytest

from agentprm import (
    InvalidRequest,
    Outcomes,
    RequestError,
    State,
    Step,
    TooLong,
    Trajectory,
    UnexpectedReply,
    UpstreamFailed,
    wire,
)
from tests.agentprm.scripted import STEP, USAGE, ScriptedService, items_of, reply

TORCH = Trajectory("craft a torch", (Step("", "get 1 stick"),))
BED = Trajectory("craft a bed", (Step("", "get 3 wool"),))
EMPTY = Trajectory("craft a chair", (Step("", ""),))


def failed(code: str, **details: Any) -> dict[str, Any]:
    return {"id": None, "error": {"code": code, "message": "why", "details": details}}


def test_each_item_has_its_result_or_an_error_of_the_class_that_a_call_of_its_own_would_raise(
    service: ScriptedService,
) -> None:
    service.answers = [reply(STEP, failed("too_long", item=1, limit=3), failed("upstream_failed", item=2))]
    outcomes = service.call("score_step", [TORCH, BED, TORCH], on_error="item")
    assert isinstance(outcomes, Outcomes)
    assert outcomes.model.name == "textcraft-demo"
    scored, long, upstream = outcomes.results
    assert isinstance(scored, wire.StepResult)
    assert isinstance(long, TooLong)
    assert (str(long), long.details) == ("why", {"item": 1, "limit": 3})
    assert isinstance(upstream, UpstreamFailed)
    assert json.loads(service.requests[0].content)["on_error"] == "item"


def test_an_item_that_breaks_the_contract_is_not_sent_and_has_its_error_in_its_place(service: ScriptedService) -> None:
    service.answers = [reply(STEP, failed("too_long", item=1))]
    outcomes = service.call("score_step", [EMPTY, TORCH, EMPTY, BED], on_error="item")
    assert [item["task"] for item in items_of(service.requests[0])] == ["craft a torch", "craft a bed"]
    first, scored, second, long = outcomes.results
    assert isinstance(first, InvalidRequest)
    assert isinstance(second, InvalidRequest)
    assert str(second) == "items.2.steps.0.action: String should have at least 1 character"
    assert isinstance(scored, wire.StepResult)
    assert isinstance(long, TooLong)
    assert [error.details["item"] for error in (first, second, long)] == [0, 2, 3]


def test_a_call_of_items_that_all_break_the_contract_sends_nothing(service: ScriptedService) -> None:
    with pytest.raises(InvalidRequest, match=r"items.0.steps.0.action"):
        service.call("score_step", [EMPTY, EMPTY], on_error="item")
    assert not service.requests


def test_trajectories_and_rankings_have_outcomes_too(service: ScriptedService) -> None:
    scores = [{"promise": 0.5, "progress": None, "raw": 0.0}]
    ranked = [{"index": 0, "rank": 0, "promise": 0.5, "progress": None, "raw": 0.0}]
    service.answers = [
        reply({"id": None, "steps": scores, "aggregate": 0.5, "usage": USAGE}, failed("invalid", item=1)),
        reply(failed("invalid", item=0), {"id": None, "ranking": ranked, "usage": USAGE}),
    ]
    trajectory, wrong = service.call("score_trajectory", [TORCH, BED], on_error="item", aggregate="min").results
    assert trajectory.aggregate == 0.5
    assert isinstance(wrong, InvalidRequest)
    assert json.loads(service.requests[0].content)["aggregate"] == "min"
    wrong, ranking = service.call("rank_actions", [(State("t"), ["a"])] * 2, on_error="item").results
    assert isinstance(wrong, InvalidRequest)
    assert ranking.ranking[0].index == 0


def test_results_stay_tied_to_their_items(service: ScriptedService) -> None:
    own = wire.TrajectoryItem.model_validate({"id": "mine", "task": "t", "steps": [{"action": "a"}]})
    service.answers = [reply(STEP, failed("invalid"))]
    scored, _ = service.call("score_step", [own, own], on_error="item").results
    assert scored.id == "mine"
    service.answers = [reply(STEP, {**failed("invalid"), "id": "another"}), reply(STEP)]
    for _ in range(2):
        with pytest.raises(UnexpectedReply):
            service.call("score_step", [TORCH, BED], on_error="item")


def test_an_error_of_an_item_is_no_reply_to_a_call_that_did_not_ask_for_it(service: ScriptedService) -> None:
    service.answers = [reply(STEP, failed("invalid"))]
    with pytest.raises(UnexpectedReply):
        service.call("score_step", [TORCH, BED])
    assert "on_error" not in json.loads(service.requests[0].content)


def test_the_code_of_a_newer_service_is_an_error_of_the_base_class(service: ScriptedService) -> None:
    service.answers = [reply(failed("new_code"))]
    (error,) = service.call("score_step", [TORCH], on_error="item").results
    assert type(error) is RequestError


def test_another_word_is_refused_before_anything_is_sent(service: ScriptedService) -> None:
    with pytest.raises(InvalidRequest, match="on_error: Input should be 'item' or 'request'"):
        service.call("score_step", [TORCH], on_error="skip")
    assert not service.requests


def test_a_client_lets_histories_be_cut_unless_an_item_says_otherwise(service: ScriptedService) -> None:
    fields = {"task": "t", "steps": [{"action": "a"}]}
    own = [wire.TrajectoryItem.model_validate({**fields, "overflow": how}) for how in ("error", "shorten_observations")]
    chat = {"messages": [{"role": "user", "content": "t"}, {"role": "assistant", "content": "a"}]}
    service.answers = [reply(*[STEP] * 5), reply(*[STEP] * 2)]
    service.call(
        "score_step", [TORCH, *own, chat, {**chat, "overflow": "shorten_observations"}], overflow="drop_oldest"
    )
    said = [item.get("overflow") for item in items_of(service.requests[0])]
    assert said == ["drop_oldest", None, "shorten_observations", "drop_oldest", "shorten_observations"]
    service.call("score_step", [TORCH, chat])
    assert all("overflow" not in item for item in items_of(service.requests[1]))


def test_an_unknown_overflow_of_a_client_is_refused_before_anything_is_sent(service: ScriptedService) -> None:
    with pytest.raises(InvalidRequest, match=r"items\.0\.overflow"):
        service.call("score_step", [TORCH], overflow="truncate")
    assert not service.requests
