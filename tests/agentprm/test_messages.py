"""Chats as clients write them: what carries no text is ignored, what would go unread is refused with its place."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import InvalidRequest
from agentprm.messages import to_history, to_proposal
from agentprm.types import Conversation, Message
from agentprm.wire import RankItem, TrajectoryItem
from agentprm.wire.chat_fields import FUNCTION, LEVELS, MESSAGE, PART, TOOL_CALL, holds_nothing

USER = {"role": "user", "content": "Who has more?"}
SAYS = {"role": "assistant", "content": "Bob has more."}
NOTHING = [None, False, 0, 7, -1.5, "", [], {}, {"refusal": None}, [[], {"a": [0]}]]
SOMETHING = [True, "text", ["text"], {"a": {"b": "text"}}, [True], " "]


def conversation(*messages: dict[str, Any], **item: Any) -> Conversation:
    history = to_history(TrajectoryItem.model_validate({"messages": messages, **item}))
    assert isinstance(history, Conversation)
    return history


def refusal(*messages: dict[str, Any], **item: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        conversation(*messages, **item)
    return caught.value.message


def calls(*ids: str | None, **more: Any) -> dict[str, Any]:
    function = {"name": "balance", "arguments": "{}"}
    made = [{"function": function} if call_id is None else {"id": call_id, "function": function} for call_id in ids]
    return {"role": "assistant", "tool_calls": made, **more}


def result(content: str, call_id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content} | ({} if call_id is None else {"tool_call_id": call_id})


def with_field(level: str, name: str, value: Any) -> dict[str, Any]:
    """An assistant turn with one more field in its object of the level."""
    message, part, call, function = (
        {name: value} if level == each.name else {} for each in (MESSAGE, PART, TOOL_CALL, FUNCTION)
    )
    called = {"id": "1", "function": {"name": "f", "arguments": "{}", **function}, **call}
    parts = [{"type": "text", "text": "I look."}, {"type": "text", "text": " There.", **part}]
    return {"role": "assistant", "content": parts, "tool_calls": [called], **message}


PLAIN = with_field("none", "", None)
PLACES = {
    "message": "messages.1",
    "content part": "messages.1.content.1",
    "tool call": "messages.1.tool_calls.0",
    "function": "messages.1.tool_calls.0.function",
}


@pytest.mark.parametrize("level", PLACES)
@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_an_unlisted_field_that_holds_nothing_is_ignored(level: str, value: Any) -> None:
    assert conversation(USER, with_field(level, "novelty", value)) == conversation(USER, PLAIN)


@pytest.mark.parametrize("level", PLACES)
@pytest.mark.parametrize("value", SOMETHING, ids=repr)
def test_an_unlisted_field_that_holds_something_is_refused_by_name_and_place(level: str, value: Any) -> None:
    why = refusal(USER, with_field(level, "novelty", value))
    assert why == f"{PLACES[level]}: {level} fields that are not scored: novelty"


@pytest.mark.parametrize(("level", "name"), [(each.name, name) for each in LEVELS[:4] for name in each.ignored])
def test_a_listed_field_is_ignored_whatever_it_holds(level: str, name: str) -> None:
    held = {"text": "x", "more": [True]}
    assert conversation(USER, with_field(level, name, held)) == conversation(USER, PLAIN)


@pytest.mark.parametrize(("level", "name"), [(each.name, name) for each in LEVELS[:4] for name in each.refused])
def test_a_refused_field_comes_with_advice(level: str, name: str) -> None:
    advice = next(each for each in LEVELS if each.name == level).refused[name]
    assert refusal(USER, with_field(level, name, "text")).endswith(f"not scored: {name} ({advice})")
    assert conversation(USER, with_field(level, name, None)) == conversation(USER, PLAIN)


@st.composite
def littered(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with fields that hold nothing in each of its objects."""
    if isinstance(value, list):
        return [draw(littered(part)) for part in value]
    if not isinstance(value, dict):
        return value
    litter = draw(
        st.dictionaries(st.sampled_from(["novel", "refusal", "audio", "function_call"]), st.sampled_from(NOTHING))
    )
    return {**litter, **{name: draw(littered(part)) for name, part in value.items()}}


CHAT = [USER, calls("a", "b", reasoning="Hm."), result("2", "b"), result("1", "a"), PLAIN]


@given(littered(CHAT))
def test_fields_that_hold_nothing_change_no_chat_wherever_they_stand(chat: list[dict[str, Any]]) -> None:
    assert conversation(*chat) == conversation(*CHAT)


def test_no_field_is_in_two_columns_of_the_table() -> None:
    for level in LEVELS:
        names = [*level.read, *level.ignored, *level.refused]
        assert len(names) == len(set(names)), level.name


def test_fields_that_a_gateway_repeats_are_judged_as_if_they_stood_in_the_message() -> None:
    nested = {"refusal": None, "citations": None, "annotations": [{"url": "x"}]}
    assert conversation(USER, {**SAYS, "provider_specific_fields": nested}) == conversation(USER, SAYS)
    why = refusal(USER, {**SAYS, "provider_specific_fields": {"search_results": "text"}})
    assert why == "messages.1: message fields that are not scored: provider_specific_fields.search_results"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(json_values)
def test_a_value_holds_nothing_if_no_text_and_no_true_is_in_it(value: Any) -> None:
    leaves = json.dumps(value)
    values = json.dumps(_without_keys(value))
    assert holds_nothing(value) == ("true" not in values and not _texts(value)), leaves


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        value = list(value.values())
    return [_without_keys(part) for part in value] if isinstance(value, list) else "" if value == "" else value


def _texts(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_texts, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value != ""


@pytest.mark.parametrize(
    "turn",
    [
        {"reasoning_content": "I look first."},
        {"reasoning": "I look first."},
        {"thinking": "I look first."},
        {"reasoning_content": "I look first.", "reasoning": "I look first.", "thinking": ""},
        {"reasoning_content": "I look first.", "thinking_blocks": [{"type": "thinking", "thinking": "I look first."}]},
        {"reasoning": "I look first.", "reasoning_details": [{"type": "reasoning.text", "text": "I look first."}]},
        {
            "content": [
                {"type": "thinking", "thinking": "I look first.", "signature": "Eq"},
                {"type": "text", "text": ""},
            ]
        },
        {"content": [{"type": "reasoning", "text": "I look first."}]},
        {"content": [{"type": "reasoning", "reasoning": "I look first."}], "reasoning_content": "I look first."},
    ],
)
def test_reasoning_is_found_wherever_a_server_writes_it(turn: dict[str, Any]) -> None:
    (_, kept) = conversation(USER, {**calls("1"), **turn}).messages
    (_, dropped) = conversation(USER, {**calls("1"), **turn}, reasoning="drop").messages
    assert (kept.reasoning, kept.text) == ("I look first.", "")
    assert (dropped.reasoning, dropped.text) == (None, "")


def test_include_is_passed_on_to_the_template() -> None:
    assert conversation(USER, SAYS, reasoning="include").include_reasoning
    assert not conversation(USER, SAYS).include_reasoning


def test_a_candidate_is_the_assistants_and_obeys_reasoning() -> None:
    item = {"messages": [USER], "candidates": ["go", {"content": "look", "reasoning": "hm"}], "reasoning": "drop"}
    _, candidates = to_proposal(RankItem.model_validate(item))
    assert candidates == ["go", Message("assistant", "look")]


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (
            {**SAYS, "reasoning": "a", "thinking": "b"},
            "messages.1: reasoning stands in two fields with different texts",
        ),
        ({**SAYS, "thinking_blocks": [{"thinking": "a"}]}, "thinking_blocks (send their text as reasoning_content)"),
        (
            {"role": "user", "content": "x", "reasoning": "a"},
            "messages.1: only an assistant message may hold reasoning",
        ),
        ({**calls("1"), "role": "user"}, "messages.1: only an assistant message may hold tool_calls"),
        ({**USER, "tool_call_id": "1"}, "messages.1: only a tool message may hold tool_call_id"),
        ({"content": "x"}, "messages.1: a message needs a role"),
        ({**SAYS, "content": ""}, "messages.1: an assistant message needs content or tool_calls"),
        ({**SAYS, "content": [], "reasoning": "a"}, "messages.1: an assistant message needs content or tool_calls"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages.1.content.0: parts of type image_url are not scored",
        ),
        ({**SAYS, "content": [{"type": "whatever"}]}, "messages.1.content.0: parts of this type are not scored"),
        ({**SAYS, "content": [{"image": "x"}]}, "messages.1.content.0: parts without a type are not scored"),
        ({**SAYS, "content": [{"type": "text"}]}, "messages.1.content.0: a part of this type needs text"),
        (
            {**SAYS, "content": [{"type": "text", "text": "a", "thinking": "b"}]},
            "messages.1.content.0: content part fields that are not scored: thinking",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]},
            "messages.1.tool_calls.0: only calls of type function are scored",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "function"}]},
            "messages.1.tool_calls.0: a tool call needs function with name and arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "f", "arguments": "x"}}]},
            "messages.1.tool_calls.0: only calls of type function are scored",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 201 + "]" * 201}}]},
            "messages.1.tool_calls.0.function.arguments: they nest deeper than 200",
        ),
    ],
)
def test_a_turn_that_cannot_be_scored_as_it_is_is_refused_with_its_place(turn: dict[str, Any], why: str) -> None:
    assert why in refusal(USER, turn, SAYS)


@pytest.mark.parametrize("arguments", ['{"a": "' + "[" * 500 + '"}', "[]" * 500, '"' + '\\"{' * 500 + '"'])
def test_brackets_in_texts_or_side_by_side_do_not_nest(arguments: str) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    assert len(conversation(USER, {"role": "assistant", "tool_calls": [call]}).messages) == 2


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (USER, "candidates.1: an action is an assistant message, not a user message"),
        ({"role": "assistant"}, "candidates.1: an assistant message needs content or tool_calls"),
        ({"content": "a", "novelty": "b"}, "candidates.1: message fields that are not scored: novelty"),
    ],
)
def test_a_bad_candidate_has_its_index(candidate: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_proposal(RankItem.model_validate({"messages": [USER], "candidates": ["x", candidate]}))
    assert caught.value.message == why


def test_long_names_are_cut_and_many_are_not_all_listed() -> None:
    why = refusal(USER, {**SAYS, **{f"{at:03}{'x' * 1000}": "text" for at in range(100)}})
    assert len(why) < 500
