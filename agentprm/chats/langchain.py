"""Messages of LangChain."""

from collections.abc import Iterable
from typing import Any, Final

from agentprm.chats.objects import Fields, Object, as_fields, objects
from agentprm.chats.turns import Part, assistant, content_of, text_part, tool_call, unscored

_ROLES: Final = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
}
_REPEATED: Final = ("tool_use", "tool_call", "function_call", "input_json_delta")
"""Blocks that repeat what ``tool_calls`` holds."""


def from_langchain(messages: Iterable[Any]) -> list[Fields]:
    """Returns LangChain's messages as an OpenAI chat.

    Arguments of a call are the model's own text where a message has it, in ``additional_kwargs`` or as an invalid call.
    Other fields of ``additional_kwargs`` go with the message, so that the service refuses what it cannot score. Left
    out: ``artifact`` and ``status`` of a tool message, which no model sees, and ``redacted_thinking`` blocks.

    Args:
        messages: message objects, or dictionaries as ``model_dump`` and ``messages_to_dict`` return them.

    Raises:
        InvalidRequest: a message is no turn of a chat, or has a block that is neither text nor reasoning.
    """
    return [_message(f"messages.{at}", message) for at, message in enumerate(messages)]


def _message(place: str, given: Any) -> Fields:
    message = as_fields(place, given)
    if isinstance(message.get("data"), dict):
        message = Object(place, {**message["data"], "type": message.get("type")})
    role = message["role"] if message.get("type") == "chat" else _ROLES.get(str(message.get("type")))
    if role is None:
        raise unscored(place, message.get("type"))
    kept = message.get("additional_kwargs") or {}
    more = {name: held for name, held in kept.items() if not name.startswith("__")}
    if role == "assistant":
        return _assistant(place, message, more)
    content = content_of(_parts(f"{place}.content", message["content"])[0])
    role = kept.get("__openai_role__", role) if role == "system" else role
    names = ("name", "tool_call_id") if role == "tool" else ("name",)
    return {**more, "role": role, "content": content, **{name: message[name] for name in names if message.get(name)}}


def _assistant(place: str, message: Object, more: Fields) -> Fields:
    parts, thoughts = _parts(f"{place}.content", message["content"])
    calls = _calls(f"{place}.tool_calls", message.get("tool_calls"))
    written = objects(f"{place}.additional_kwargs.tool_calls", more.pop("tool_calls", None) or ())
    if len(written) == len(calls):
        calls = [call for _, call in written]
    calls += _calls(f"{place}.invalid_tool_calls", message.get("invalid_tool_calls"))
    if calls:
        more.pop("function_call", None)  # Gemini's copy of the last call
    named = {"name": message["name"]} if message.get("name") else {}
    return {**more, **assistant(parts, thoughts, calls), **named}


def _calls(place: str, calls: Any) -> list[Fields]:
    return [tool_call(call.get("id"), call["name"], call["args"]) for _, call in objects(place, calls or ())]


def _parts(place: str, content: Any) -> tuple[list[Part], list[str]]:
    """Returns the texts and the thoughts of a content, whose blocks may be texts themselves."""
    if isinstance(content, str):
        return [text_part(content)], []
    if isinstance(content, list | tuple):
        content = [text_part(block) if isinstance(block, str) else block for block in content]
    parts: list[Part] = []
    thoughts: list[str] = []
    for where, block in objects(place, content):
        kind = block.get("type")
        if kind == "text":
            parts.append(text_part(block["text"]))
        elif kind in ("thinking", "reasoning", "reasoning_content"):
            thoughts.append(_thought(block))
        elif kind not in (*_REPEATED, "redacted_thinking"):
            raise unscored(where, kind)
    return parts, thoughts


def _thought(block: Object) -> str:
    """Returns the text of a reasoning block of Anthropic, of LangChain itself, of Bedrock or of OpenAI."""
    for held in (block.get("thinking"), block.get("reasoning"), block.get("reasoning_content"), block.get("text")):
        if held:
            return str(held["text"] if isinstance(held, dict) else held)
    return "\n".join(str(part["text"]) for part in block.get("summary") or ())
