"""Pieces of OpenAI chats that several converters write."""

from collections.abc import Iterable, Mapping
from typing import Any

from agentprm.chats.objects import Fields
from agentprm.errors import InvalidRequest

Part = dict[str, str]


def text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def content_of(parts: list[Part]) -> str | list[Part] | None:
    """Returns parts as the content of a message: one text as it is, none as None."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts or None


def tool_call(call_id: str | None, name: str, arguments: str | Mapping[str, Any]) -> Fields:
    """Returns a tool call. Arguments are the text that the model wrote, or an object."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(parts: list[Part], thoughts: Iterable[str], calls: list[Fields]) -> Fields:
    """Returns an assistant's turn. Thoughts become one text, a line each."""
    turn: Fields = {"role": "assistant", "content": content_of(parts)}
    reasoning = "\n".join(filter(None, thoughts))
    return turn | ({"reasoning_content": reasoning} if reasoning else {}) | ({"tool_calls": calls} if calls else {})


def unscored(place: str, kind: Any) -> InvalidRequest:
    """Returns the error about a block or an item that an OpenAI chat of texts has no place for."""
    return InvalidRequest(f"{place}: type {kind} is not scored")
