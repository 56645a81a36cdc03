"""Pieces of chats in the shapes of several APIs, and what it means to be odd."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Turn = dict[str, Any]
SAME: Final = "the score of the plain chat"
OTHER: Final = "another score"

USER: Final = {"role": "user", "content": "Find the kettle."}
FUNCTION: Final = {"name": "look", "arguments": '{"where": "shelf"}'}
CALL: Final = {"id": "c1", "type": "function", "function": FUNCTION}
CALLS: Final = {"role": "assistant", "content": None, "tool_calls": [CALL]}
FOUND: Final = {"role": "tool", "tool_call_id": "c1", "content": "A blue kettle."}
SAYS: Final = {"role": "assistant", "content": "It is there."}
PLAIN: Final = [USER, CALLS, FOUND, SAYS]
THOUGHT: Final = "The shelf first."
THINKS: Final = [USER, {**CALLS, "reasoning_content": THOUGHT}, FOUND, SAYS]


@dataclass(frozen=True)
class OddChat:
    """A chat, where it comes from, what is odd about it, and the answer: SAME, OTHER or the sentence of a 422."""

    source: str
    oddity: str
    messages: Sequence[Any]
    answer: str = SAME
    plain: Sequence[Any] = tuple(PLAIN)
    tools: Sequence[Any] = ()

    def __str__(self) -> str:
        return f"{self.source}: {self.oddity}"


def with_message(**fields: Any) -> list[Turn]:
    return [USER, {**CALLS, **fields}, FOUND, SAYS]


def with_call(**fields: Any) -> list[Turn]:
    return with_message(tool_calls=[{**CALL, **fields}])


def with_function(**fields: Any) -> list[Turn]:
    return with_call(function={**FUNCTION, **fields})


def with_user(content: Any) -> list[Turn]:
    return [{"role": "user", "content": content}, CALLS, FOUND, SAYS]


def with_result(**fields: Any) -> list[Turn]:
    return [USER, CALLS, {**FOUND, **fields}, SAYS]


def saying(**fields: Any) -> list[Turn]:
    return [USER, CALLS, FOUND, {**SAYS, **fields}]


def text(written: str, **fields: Any) -> Turn:
    return {"type": "text", "text": written, **fields}


def both(*results: tuple[str | None, str]) -> list[Turn]:
    """Two parallel calls, c1 and c2, and results as (id, content)."""
    other = {**CALL, "id": "c2", "function": {**FUNCTION, "arguments": '{"where": "table"}'}}
    turns = [
        {"role": "tool", "content": content} | ({"tool_call_id": call_id} if call_id else {})
        for call_id, content in results
    ]
    return [USER, {**CALLS, "tool_calls": [CALL, other]}, *turns, SAYS]


NULLS: Final[Turn] = {"refusal": None, "annotations": [], "audio": None, "function_call": None}
SIGNED: Final = {"google": {"thought_signature": "CpAB"}}
BLOCKS: Final = [{"type": "thinking", "thinking": THOUGHT, "signature": "EqQB"}]
DETAILS: Final = [{"type": "reasoning.text", "text": THOUGHT, "signature": None, "format": "x", "index": 0}]
BOTH: Final = tuple(both(("c1", "A kettle."), ("c2", "Nothing.")))
NOT_ALONE: Final = "send their text as reasoning_content"
ROLES: Final = "Input should be 'system', 'developer', 'user', 'assistant' or 'tool'"
USE: Final = {"type": "tool_use", "id": "c1", "name": "look", "input": {"where": "shelf"}, "caller": None}
RESULT: Final = {"type": "tool_result", "tool_use_id": "c1", "content": [text("A blue kettle.")], "is_error": False}
ANTHROPIC: Final = [
    USER,
    {"role": "assistant", "content": [USE]},
    {"role": "user", "content": [RESULT]},
    {"role": "assistant", "content": [text("It is there.", citations=None)]},
]
ITEMS: Final[list[Turn]] = [
    USER,
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]},
    {"type": "function_call", "call_id": "c1", **FUNCTION, "status": "completed"},
    {"type": "function_call_output", "call_id": "c1", "output": "A blue kettle."},
    {"type": "message", **SAYS, "content": [{"type": "output_text", "text": "It is there.", "annotations": []}]},
]
LANGCHAIN: Final = [
    {"type": "human", "content": "Find the kettle.", "additional_kwargs": {}},
    {"type": "ai", "content": "", "tool_calls": [{"name": "look", "args": {"where": "shelf"}, "id": "c1"}]},
    {"type": "tool", "content": "A blue kettle.", "tool_call_id": "c1", "status": "success", "artifact": {"a": "b"}},
    {"type": "ai", "content": ["It is", text(" there.", index=0)], "tool_calls": [], "invalid_tool_calls": []},
]
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def item_of(messages: Sequence[Any], tools: Sequence[Any] = ()) -> bytes:
    return json.dumps({"items": [{"messages": list(messages), **({"tools": list(tools)} if tools else {})}]}).encode()
