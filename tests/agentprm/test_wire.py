"""Wire bodies: the documented shapes, and no others."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from agentprm import wire
from agentprm.errors import InvalidRequest

STEP = {"observation": "o", "action": "a"}
ITEM = {"task": "t", "steps": [STEP]}
CHAT = [{"role": "user", "content": "t"}, {"role": "assistant", "content": "a"}]
RANK = {"task": "t", "steps": [STEP], "observation": "o", "candidates": ["x", "y"]}
USAGE = {"tokens": 113, "computed": 12, "prefix_cache": 101, "score_cache": 0, "unknown": 0}
MODEL = {"name": "textcraft-demo", "version": "1", "digest": "sha256:5f0c"}
SCORE = {"promise": 0.8, "progress": 0.1, "raw": 1.4}
CANDIDATE = {"index": 3, "rank": 0, **SCORE}


@pytest.mark.parametrize(
    "item",
    [ITEM, {"id": "a", **ITEM}, {"messages": CHAT}, {"task": "t", "steps": [{"action": "a"}], "messages": None}],
    ids=["steps", "id", "messages", "null messages"],
)
def test_a_trajectory_comes_in_either_form(item: dict[str, Any]) -> None:
    assert len(wire.ScoreRequest.model_validate({"items": [item]}).items) == 1


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({}, "either task"),
        ({**ITEM, "messages": CHAT}, "either task"),
        ({"messages": CHAT, "steps": [STEP]}, "steps go with task"),
        ({"steps": [STEP]}, "either task"),
        ({"task": "t"}, "at least one step"),
        ({"task": "t", "steps": []}, "at least one step"),
        ({"task": "", "steps": [STEP]}, "at least 1 character"),
        ({"task": "t", "steps": [{"observation": "o", "action": ""}]}, "at least 1 character"),
        ({"task": "t", "steps": [{"observation": "o"}]}, "Field required"),
        ({"task": "t", "steps": [{**STEP, "action": 7}]}, "valid string"),
        ({"messages": []}, "at least 1 item"),
        ({**ITEM, "observation": "o"}, "Extra inputs"),
        ({"task": "t", "steps": [{**STEP, "reward": 1}]}, "Extra inputs"),
        ({**ITEM, "id": 3}, "valid string"),
    ],
)
def test_an_item_that_is_not_one_trajectory_is_refused(item: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        wire.ScoreRequest.model_validate({"items": [item]})


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({**RANK, "candidates": []}, "at least 1 item"),
        ({**RANK, "candidates": [""]}, "at least 1 character"),
        ({**RANK, "candidates": "xy"}, "valid list"),
        ({"task": "t", "steps": [STEP]}, "either candidates or sample"),
        ({**RANK, "sample": {"n": 1}}, "either candidates or sample"),
        ({"task": "t", "sample": {"temperature": 1}}, "Field required"),
        ({"task": "t", "sample": {"n": 1, "stop": [""]}}, "at least 1 character"),
        ({"messages": CHAT[:1], "observation": "o", "candidates": ["x"]}, "observation goes with task"),
        ({**RANK, "messages": CHAT}, "either task"),
        ({**RANK, "top_k": 1}, "Extra inputs"),
    ],
)
def test_an_item_that_is_not_one_choice_is_refused(item: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        wire.RankRequest.model_validate({"items": [item]})


@pytest.mark.parametrize("request_body", [wire.ScoreRequest, wire.RankRequest])
@pytest.mark.parametrize("fields", [{"items": []}, {}, {"items": None}])
def test_a_request_without_items_is_refused(
    request_body: type[wire.ScoreRequest | wire.RankRequest], fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="items"):
        request_body.model_validate(fields)


@pytest.mark.parametrize("fields", [{"items": [ITEM], "modle": "demo"}, {"items": [ITEM], "model": ""}])
def test_a_misspelt_field_and_an_empty_model_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        wire.ScoreRequest.model_validate(fields)


@pytest.mark.parametrize(
    ("candidate", "errors"),
    [
        (5, {"": "valid string or an object"}),
        ("", {"": "at least 1 character"}),
        ({"content": 5}, {".content": "valid string or a valid array"}),
        ({"content": ["a"]}, {".content.0": "an object"}),
        ({"content": [{"text": 5}]}, {".content.0.text": "valid string"}),
        ({"content": "a", "role": "critic"}, {".role": "'assistant'"}),
        ({"content": 5, "role": "critic"}, {".content": "valid string or a valid array", ".role": "'assistant'"}),
        ({"tool_calls": [{"function": {"name": "f"}}]}, {".tool_calls.0.function.arguments": "required"}),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]},
            {".tool_calls.0.function.arguments": "valid string"},
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": float("inf")}}}]},
            {".tool_calls.0.function.arguments": "finite"},
        ),
    ],
)
def test_an_error_names_the_branch_that_was_meant_and_its_place(candidate: Any, errors: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.validate(wire.RankRequest, {"items": [{"task": "t", "candidates": ["x", candidate]}]})
    places = {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.details["errors"]}
    assert places.keys() == {f"items.0.candidates.1{place}" for place in errors}
    for place, why in errors.items():
        assert re.search(why, places[f"items.0.candidates.1{place}"])


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": None}, "strict": True}}


@pytest.mark.parametrize(
    "tool",
    [TOOL, {**TOOL, "cache_control": {"type": "ephemeral"}}, {**TOOL, "note": None}],
    ids=["plain", "marked", "with an empty field"],
)
def test_a_tool_keeps_its_function_and_the_order_of_its_keys(tool: dict[str, Any]) -> None:
    item = wire.TrajectoryItem.model_validate({"messages": CHAT, "tools": [tool]})
    assert item.tools == [json.dumps(TOOL)]
    body = wire.encode(wire.ScoreRequest.model_validate({"items": [item]}))
    assert json.dumps(json.loads(body)["items"][0]["tools"]) == json.dumps([TOOL])


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        ("f", "an object"),
        (
            {"name": "f", "description": "d", "input_schema": {"type": "object"}},
            "not scored: description, input_schema, name .*send",
        ),
        ({"type": "function", "name": "f", "parameters": {}}, "not scored: name"),
        ({"type": "web_search"}, "the type function"),
        ({"type": "function", "function": {"description": "d"}}, "a function with a name"),
        ({**TOOL, "note": "read me"}, "not scored: note"),
        ({"function": {"name": "f", "parameters": {"maximum": float("inf")}}}, "finite"),
    ],
)
def test_a_tool_that_no_template_would_get_whole_is_refused(tool: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"items\.0\.tools\.0: .*{why}"):
        wire.validate(wire.ScoreRequest, {"items": [{"messages": CHAT, "tools": [tool]}]})


@pytest.mark.parametrize("more", [{"tools": [TOOL]}, {"reasoning": "drop"}])
def test_tools_and_reasoning_go_with_messages(more: dict[str, Any]) -> None:
    assert len(wire.ScoreRequest.model_validate({"items": [{"messages": CHAT, **more}]}).items) == 1
    with pytest.raises(ValidationError, match="go with messages"):
        wire.ScoreRequest.model_validate({"items": [{**ITEM, **more}]})


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (wire.ScoreStepReply, {"model": MODEL, "results": [{"id": "a", **SCORE, "usage": USAGE}]}),
        (wire.ScoreTrajectoryReply, {"model": MODEL, "results": [{"id": None, "steps": [SCORE], "usage": USAGE}]}),
        (wire.RankActionsReply, {"model": MODEL, "results": [{"id": "a", "ranking": [CANDIDATE], "usage": USAGE}]}),
        (wire.ErrorReply, {"error": {"code": "invalid", "message": "why", "details": {}}}),
    ],
)
def test_a_reply_has_the_names_of_the_contract(reply: type[wire.Reply], body: dict[str, Any]) -> None:
    assert json.loads(reply.model_validate(body).model_dump_json()) == body


def test_the_first_step_has_null_progress_and_no_missing_one() -> None:
    assert wire.ScoreBody.model_validate({"promise": 0.5, "progress": None, "raw": 0.0}).progress is None
    with pytest.raises(ValidationError, match="progress"):
        wire.ScoreBody.model_validate({"promise": 0.5, "raw": 0.0})


def test_a_reply_may_tell_more_but_a_request_may_not() -> None:
    assert wire.UsageBody.model_validate({**USAGE, "disk_cache": 0}).tokens == 113
    assert all(not issubclass(kind, wire.Reply) for kind in (wire.ScoreRequest, wire.RankRequest, wire.RankItem))


def test_encode_leaves_out_null_fields() -> None:
    body = wire.encode(wire.validate(wire.ScoreRequest, {"model": None, "items": [{"id": None, **ITEM}]}))
    assert json.loads(body) == {"items": [ITEM]}


def test_validate_says_where_the_contract_is_broken_and_quotes_nothing() -> None:
    with pytest.raises(InvalidRequest) as caught:
        wire.validate(wire.RankRequest, {"items": [RANK, {**RANK, "observation": 5551234}]})
    assert caught.value.message == "items.1.observation: Input should be a valid string"
    assert [error["loc"] for error in caught.value.details["errors"]] == [("items", 1, "observation")]
    assert "5551234" not in str(caught.value.details)
