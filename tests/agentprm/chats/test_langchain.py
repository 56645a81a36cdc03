"""LangChain's messages as OpenAI chats. The fields are those that ``langchain-core`` 1 dumps."""

from typing import Any

import pytest

from agentprm.chats import from_langchain
from agentprm.errors import InvalidRequest

EMPTY = {"additional_kwargs": {}, "response_metadata": {"model_name": "m"}, "name": None, "id": "run-1"}
CALL = {"name": "look", "args": {"where": "shelf"}, "id": "c1", "type": "tool_call"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"where": "shelf"}}}


def message(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"content": content, "type": kind, **EMPTY, **more}


def ai(content: Any, *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return message("ai", content, tool_calls=list(calls), **{"invalid_tool_calls": [], "usage_metadata": None, **more})


class Object:
    """A message object: a pydantic model to whoever asks."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        return {name: held for name, held in self.fields.items() if not (exclude_none and held is None)}


CHAT = [
    message("system", "You help."),
    message("human", ["Find", {"type": "text", "text": " it."}]),
    ai("", CALL),
    message("tool", "A kettle.", tool_call_id="c1", name="look", artifact={"rows": [1]}, status="success"),
    message("AIMessageChunk", "It is there.", tool_call_chunks=[], tool_calls=[], invalid_tool_calls=[]),
]
CONVERTED = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": [{"type": "text", "text": "Find"}, {"type": "text", "text": " it."}]},
    {"role": "assistant", "content": "", "tool_calls": [CALLED]},
    {"role": "tool", "content": "A kettle.", "tool_call_id": "c1", "name": "look"},
    {"role": "assistant", "content": "It is there."},
]


@pytest.mark.parametrize(
    "chat",
    [CHAT, list(map(Object, CHAT)), [{"type": each["type"], "data": each} for each in CHAT]],
    ids=["dumped", "objects", "messages_to_dict"],
)
def test_messages_keep_their_roles_calls_and_results(chat: list[Any]) -> None:
    assert from_langchain(chat) == CONVERTED


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "The shelf first.", "signature": "Eq"},
        {"type": "reasoning", "reasoning": "The shelf first."},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "The shelf first."}]},
        {"type": "reasoning_content", "reasoning_content": {"text": "The shelf first.", "signature": "Eq"}},
    ],
)
def test_reasoning_blocks_become_the_reasoning(block: dict[str, Any]) -> None:
    use = {"type": "tool_use", "id": "c1", "name": "look", "input": {"where": "shelf"}}
    (turn,) = from_langchain([ai([block, {"type": "text", "text": "I look."}, use], CALL)])
    expected = {"content": "I look.", "reasoning_content": "The shelf first.", "tool_calls": [CALLED]}
    assert turn == {"role": "assistant", **expected}


def test_arguments_are_the_models_own_text_where_it_is_kept() -> None:
    written = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"where":  "shelf"}'}}
    broken = {"type": "invalid_tool_call", "name": "look", "args": "{where", "id": "c2", "error": "bad"}
    kept = {"tool_calls": [written], "refusal": None, "reasoning_content": "Hm."}
    (turn,) = from_langchain([ai("", CALL, additional_kwargs=kept, invalid_tool_calls=[broken])])
    invalid = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{where"}}
    assert turn["tool_calls"] == [written, invalid]
    assert turn["reasoning_content"] == "Hm."


def test_other_roles_and_other_kept_fields_go_along() -> None:
    (turn,) = from_langchain([message("chat", "Be brief.", role="developer")])
    assert turn == {"role": "developer", "content": "Be brief."}
    (turn,) = from_langchain([message("system", "Be brief.", additional_kwargs={"__openai_role__": "developer"})])
    assert turn == {"role": "developer", "content": "Be brief."}
    (turn,) = from_langchain([ai("Hi.", additional_kwargs={"audio": {"data": "x"}})])
    assert turn["audio"] == {"data": "x"}, "the service refuses it by name"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (message("human", [{"type": "image_url", "image_url": {}}]), "messages.0.content.0: type image_url"),
        (message("function", "x"), "messages.0: type function"),
        (message("remove", ""), "messages.0: type remove"),
        ({"role": "user", "content": "Hi."}, "messages.0: type None"),
        ({"type": "human"}, "messages.0: content is missing"),
        (ai("", {"name": "look", "id": "c1"}), "messages.0.tool_calls.0: args is missing"),
        (("human", "Hi."), "messages.0 must be a mapping"),
    ],
)
def test_what_is_no_turn_of_texts_is_refused(given: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        from_langchain([given])
