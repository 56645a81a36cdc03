"""A wrong body is refused at its first faults, with pydantic's reason and none of its text."""

import json
from typing import Any

import pytest

from agentprm import wire
from agentprm.errors import InvalidRequest, TooLong
from agentprm.wire.fields import MAX_NAME, MAX_UNKNOWN
from agentprm.wire.size import MAX_VALUES

STEP = {"action": "a"}
ITEM = {"task": "t", "steps": [STEP]}
CALLS = {"role": "assistant", "tool_calls": [{"id": 1}] * 50}


def refusal(kind: type[wire.Body], body: Any) -> InvalidRequest:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        wire.decode(kind, content)
    assert caught.value.__context__ is None, "pydantic's error holds the whole input"
    return caught.value


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        (wire.ScoreRequest, {"items": [0] * 50}, ["items", 0]),
        (wire.ScoreRequest, {"items": [ITEM, *[{}] * 50]}, ["items", 1]),
        (wire.ScoreRequest, {"items": [{"task": "t", "steps": [STEP, *[{}] * 50]}]}, ["items", 0, "steps", 1]),
        (wire.ScoreRequest, {"items": [{"messages": [{"role": "x"}] * 50}]}, ["items", 0, "messages", 0]),
        (wire.ScoreRequest, {"items": [{"messages": [CALLS]}]}, ["items", 0, "messages", 0, "tool_calls", 0]),
        (wire.RankRequest, {"items": [{"task": "t", "candidates": ["a", *[0] * 50]}]}, ["items", 0, "candidates", 1]),
        (wire.RankRequest, {"items": [{"task": "t", "sample": {"n": 1, "stop": [""] * 50}}]}, ["items", 0, "sample"]),
    ],
)
def test_only_the_first_wrong_entry_of_a_list_is_reported(kind: type[wire.Body], body: Any, place: list[Any]) -> None:
    places = [error["loc"] for error in refusal(kind, body).details["errors"]]
    assert {tuple(loc[1 : 1 + len(place)]) for loc in places} == {tuple(place)}


def test_unknown_fields_are_told_apart_up_to_a_bound() -> None:
    few = refusal(wire.ScoreRequest, {"items": [ITEM], "sort": 1, "order": 2})
    assert few.message == "body.sort: Extra inputs are not permitted"
    assert [error["loc"] for error in few.details["errors"]] == [["body", "sort"], ["body", "order"]]
    many = {str(number): 0 for number in range(MAX_UNKNOWN + 1)}
    for body in ({"items": [ITEM], **many}, {"items": [{"task": "t", "steps": [{**STEP, **many}]}]}):
        assert refusal(wire.ScoreRequest, body).message == f"body: more than {MAX_UNKNOWN} unknown fields"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"items": [', "Invalid JSON: EOF while parsing a list at line 1 column 11"),
        (b'{"items":\n [1 2]}', "Invalid JSON: expected `,` or `]` at line 2 column 5"),
        (b'{"items": "\\ud800"}', "Invalid JSON: unexpected end of hex escape at line 1 column 18"),
        (b'{"items": "\xff"}', "Invalid JSON: invalid unicode code point at line 1 column 12"),
    ],
)
def test_a_body_that_is_no_json_says_why_and_at_which_line_and_column(content: bytes, reason: str) -> None:
    error = refusal(wire.ScoreRequest, content)
    assert error.message == f"body: {reason}"
    assert error.details["errors"] == [{"loc": ["body"], "msg": reason, "type": "json_invalid"}]


def test_an_absent_body_is_a_missing_field() -> None:
    assert refusal(wire.ScoreRequest, b"").message == "body: Field required"


def test_a_byte_order_mark_is_ignored() -> None:
    body = wire.decode(wire.ScoreRequest, json.dumps({"items": [ITEM]}).encode("utf-8-sig"))
    assert isinstance(body.items[0], wire.TrajectoryItem)
    assert body.items[0].task == "t"


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m" * (MAX_NAME + 1), "items": [ITEM]},
        {"items": [{"id": "i" * (MAX_NAME + 1), **ITEM}]},
        {"items": [{"messages": [{"role": "user", "name": "n" * (MAX_NAME + 1)}]}]},
    ],
)
def test_a_name_has_a_bound(body: Any) -> None:
    assert f"at most {MAX_NAME} characters" in refusal(wire.ScoreRequest, body).message


def test_a_client_refuses_what_the_service_would() -> None:
    steps = [{"observation": "o", "action": "a"}] * (MAX_VALUES // 4)
    request = wire.validate(wire.ScoreRequest, {"items": [{"task": "t", "steps": steps}]})
    with pytest.raises(TooLong):
        wire.encode(request)


def test_the_schema_forbids_unknown_fields_of_requests_and_not_of_replies() -> None:
    assert wire.ScoreRequest.model_json_schema()["additionalProperties"] is False
    assert "additionalProperties" not in wire.ScoreStepReply.model_json_schema()
