"""Anthropic's messages as OpenAI chats. The blocks are those that the package ``anthropic`` 2.14 dumps."""

from typing import Any

import pytest

from agentprm.chats import from_anthropic, tools_from_anthropic
from agentprm.errors import InvalidRequest

THINKING = {"type": "thinking", "thinking": "The shelf first.", "signature": "EqQB"}
SAYS = {"type": "text", "text": "I look there.", "citations": None}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"where": "shelf", "n": None}, "caller": None}
OTHER_USE = {"type": "tool_use", "id": "t2", "name": "look", "input": {}}
FOUND = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "A kettle."}]}
NOTHING = {"type": "tool_result", "tool_use_id": "t2", "content": "Nothing.", "is_error": True}
REPLY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 1, "output_tokens": 1},
    "content": [THINKING, SAYS, USE, OTHER_USE],
}


def call(call_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}


def test_blocks_become_turns_calls_and_results() -> None:
    system = [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}]
    hurry = {"type": "text", "text": "Be quick."}
    messages = [{"role": "user", "content": "Find it."}, REPLY, {"role": "user", "content": [FOUND, NOTHING, hurry]}]
    assert from_anthropic(messages, system=system) == [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Find it."},
        {
            "role": "assistant",
            "content": "I look there.",
            "reasoning_content": "The shelf first.",
            "tool_calls": [call("t1", {"where": "shelf", "n": None}), call("t2", {})],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "A kettle."},
        {"role": "tool", "tool_call_id": "t2", "content": "Nothing."},
        {"role": "user", "content": "Be quick."},
    ]


def test_texts_stay_apart_and_redacted_thinking_is_left_out() -> None:
    redacted = {"type": "redacted_thinking", "data": "x"}
    (turn,) = from_anthropic([{"role": "assistant", "content": [redacted, SAYS, SAYS]}])
    assert turn == {"role": "assistant", "content": [{"type": "text", "text": "I look there."}] * 2}


def test_a_result_may_have_no_content() -> None:
    (turn,) = from_anthropic([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}])
    assert turn == {"role": "tool", "tool_call_id": "t1", "content": ""}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, "messages.0.content.0: type image"),
        ({"role": "user", "content": [{**FOUND, "content": [{"type": "image"}]}]}, r"content.0.content.0: type image"),
        ({"role": "assistant", "content": [SAYS, {"type": "server_tool_use"}]}, "content.1: type server_tool_use"),
        ({"role": "user", "content": [USE]}, "messages.0.content.0: type tool_use"),
        ({"role": "system", "content": [SAYS]}, "messages.0: the role is user or assistant"),
        ({"role": "assistant", "content": [{"type": "text"}]}, "messages.0.content.0: text is missing"),
        ({"role": "assistant"}, "messages.0: content is missing"),
        ({"role": "assistant", "content": 5}, "messages.0.content must be a text or a list of objects, not int"),
        ("Find it.", "messages.0 must be a mapping, a pydantic model or a dataclass, not str"),
    ],
)
def test_what_has_no_place_in_a_chat_of_texts_is_refused(message: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        from_anthropic([message])


def test_tools_keep_their_schema() -> None:
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}, "cache_control": None}
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    assert tools_from_anthropic([tool]) == [{"type": "function", "function": function}]
    with pytest.raises(InvalidRequest, match=r"tools\.0: type web_search_20250305"):
        tools_from_anthropic([{"type": "web_search_20250305", "name": "web_search"}])
