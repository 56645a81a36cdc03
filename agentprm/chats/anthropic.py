"""Chats of Anthropic's Messages API."""

from collections.abc import Iterable
from typing import Any

from agentprm.chats.objects import Fields, Object, as_fields, objects
from agentprm.chats.turns import Part, assistant, content_of, text_part, tool_call, unscored
from agentprm.errors import InvalidRequest


def from_anthropic(messages: Iterable[Any], *, system: str | Iterable[Any] | None = None) -> list[Fields]:
    """Returns the messages of a request to Anthropic, replies of the model included, as an OpenAI chat.

    ``tool_use`` blocks become tool calls, ``tool_result`` blocks tool messages, ``thinking`` blocks the reasoning of
    their turn. Left out: ``redacted_thinking``, which nobody can read, and ``is_error``, which the result's text tells.

    Args:
        messages: dictionaries, or objects of the ``anthropic`` package.
        system: the system prompt: a text or a list of text blocks.

    Raises:
        InvalidRequest: a block is not text, thinking, a tool's use or its result.
    """
    chat: list[Fields] = []
    if system is not None:
        chat.append({"role": "system", "content": _texts("system", system)})
    for at, message in enumerate(messages):
        place = f"messages.{at}"
        turn = as_fields(place, message)
        role, content = turn.get("role"), turn["content"]
        if isinstance(content, str):
            chat.append({"role": role, "content": content})
        elif role == "assistant":
            chat.append(_assistant(place, content))
        elif role == "user":
            chat += _user(place, content)
        else:
            raise InvalidRequest(f"{place}: the role is user or assistant; the system prompt goes into system")
    return chat


def tools_from_anthropic(tools: Iterable[Any]) -> list[Fields]:
    """Returns Anthropic's tool definitions as OpenAI's.

    Raises:
        InvalidRequest: a tool of Anthropic's own, which has no schema.
    """
    return [_tool(f"tools.{at}", as_fields(f"tools.{at}", tool)) for at, tool in enumerate(tools)]


def _tool(place: str, tool: Object) -> Fields:
    if "input_schema" not in tool:
        raise unscored(place, tool.get("type"))
    described = {name: tool[name] for name in ("name", "description") if name in tool}
    return {"type": "function", "function": {**described, "parameters": tool["input_schema"]}}


def _assistant(place: str, blocks: Any) -> Fields:
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[Fields] = []
    for where, block in objects(f"{place}.content", blocks):
        kind = block.get("type")
        if kind == "text":
            parts.append(text_part(block["text"]))
        elif kind == "thinking":
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(tool_call(block["id"], block["name"], block["input"]))
        elif kind != "redacted_thinking":
            raise unscored(where, kind)
    return assistant(parts, thoughts, calls)


def _user(place: str, blocks: Any) -> list[Fields]:
    """Returns a user's turn: tool messages for its results, user messages for the texts between them."""
    turns: list[Fields] = []
    texts: list[Part] = []
    for where, block in objects(f"{place}.content", blocks):
        if block.get("type") == "text":
            texts.append(text_part(block["text"]))
            continue
        if block.get("type") != "tool_result":
            raise unscored(where, block.get("type"))
        turns += [{"role": "user", "content": content_of(texts)}] if texts else []
        texts = []
        result = _texts(f"{where}.content", block.get("content") or "")
        turns.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": result})
    return turns + ([{"role": "user", "content": content_of(texts)}] if texts else [])


def _texts(place: str, content: Any) -> str | list[Part] | None:
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for where, block in objects(place, content):
        if block.get("type") != "text":
            raise unscored(where, block.get("type"))
        parts.append(text_part(block["text"]))
    return content_of(parts)
