"""Items of the Responses API as OpenAI chats. The items are those that the package ``openai`` 3.57 dumps."""

from typing import Any

import pytest

from agentprm.chats import from_responses, tools_from_responses
from agentprm.errors import InvalidRequest

ASKS = {"role": "user", "content": [{"type": "input_text", "text": "Find it."}]}
REASONING = {
    "id": "rs",
    "summary": [{"text": "The shelf first.", "type": "summary_text"}],
    "type": "reasoning",
    "content": None,
    "encrypted_content": None,
    "status": None,
}
SAYS: dict[str, Any] = {
    "id": "m",
    "content": [{"annotations": [], "text": "I look there.", "type": "output_text", "logprobs": None}],
    "role": "assistant",
    "status": "completed",
    "type": "message",
    "phase": None,
}


def call(call_id: str) -> dict[str, Any]:
    return {"arguments": "{}", "call_id": call_id, "name": "look", "type": "function_call", "status": "completed"}


def output(call_id: str, text: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def called(*ids: str) -> list[dict[str, Any]]:
    return [{"id": each, "type": "function", "function": {"name": "look", "arguments": "{}"}} for each in ids]


def test_items_of_one_response_are_one_turn() -> None:
    found = [{"type": "input_text", "text": "A kettle."}]
    items = [ASKS, REASONING, SAYS, call("a"), call("b"), output("b", "Nothing."), output("a", found), SAYS]
    assert from_responses(items, instructions="You help.") == [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Find it."},
        {
            "role": "assistant",
            "content": "I look there.",
            "reasoning_content": "The shelf first.",
            "tool_calls": called("a", "b"),
        },
        {"role": "tool", "tool_call_id": "b", "content": "Nothing."},
        {"role": "tool", "tool_call_id": "a", "content": "A kettle."},
        {"role": "assistant", "content": "I look there."},
    ]


def test_reasoning_and_a_second_message_begin_another_turn() -> None:
    first, second, third = from_responses([call("a"), REASONING, call("b"), SAYS, SAYS])
    assert (first["tool_calls"], "reasoning_content" in first) == (called("a"), False)
    assert (second["tool_calls"], second["content"]) == (called("b"), "I look there.")
    assert second["reasoning_content"] == "The shelf first."
    assert third == {"role": "assistant", "content": "I look there."}


def test_encrypted_reasoning_without_a_summary_is_left_out() -> None:
    (turn,) = from_responses([{**REASONING, "summary": [], "encrypted_content": "x"}, SAYS])
    assert turn == {"role": "assistant", "content": "I look there."}


def test_whole_reasoning_counts_before_its_summary() -> None:
    content = [{"type": "reasoning_text", "text": "The shelf, then the table."}]
    (turn,) = from_responses([{**REASONING, "content": content}, SAYS])
    assert turn["reasoning_content"] == "The shelf, then the table."


def test_an_input_may_be_one_text() -> None:
    assert from_responses("Find it.") == [{"role": "user", "content": "Find it."}]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"type": "web_search_call", "id": "w"}, "items.0: type web_search_call is not scored"),
        ({"type": "item_reference", "id": "w"}, "items.0: type item_reference"),
        ({**ASKS, "content": [{"type": "input_image"}]}, "items.0.content.0: type input_image"),
        ({**SAYS, "content": [{"type": "refusal", "refusal": "No."}]}, "items.0.content.0: type refusal"),
        (output("a", [{"type": "input_file"}]), "items.0.output.0: type input_file"),
        ({"type": "function_call", "name": "look"}, "items.0: call_id is missing"),
        ({**ASKS, "content": [{"type": "input_text"}]}, "items.0.content.0: text is missing"),
        ({"type": "function_call_output", "call_id": "a"}, "items.0: output is missing"),
    ],
)
def test_what_has_no_place_in_a_chat_of_texts_is_refused(item: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        from_responses([item])


def test_tools_keep_their_schema() -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True, "description": None}
    function = {"name": "look", "parameters": {"type": "object"}, "strict": True}
    assert tools_from_responses([tool]) == [{"type": "function", "function": function}]
    with pytest.raises(InvalidRequest, match=r"tools\.0: type web_search"):
        tools_from_responses([{"type": "web_search"}])
