"""Chats as agents have them, for eight chat templates; and tokenizers that know the templates' tokens."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from agentprm.types import Conversation, Message, ToolCall
from model_store.format.chat import ChatTemplate
from model_store.text.chat_renderer import ChatRenderer
from tests.model_store.tiny_checkpoints import byte_level

TEMPLATES: Final = {
    file.stem: file.read_text(encoding="utf-8")
    for file in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
}
_SPECIAL: Final = re.compile(r"<\|[a-z_]+\|>|<(?:start|end)_of_turn>|\[/?[A-Z_]+\]")
BOS, EOS = "<s>", "</s>"
DATE: Final = "2026-01-31"

Chat = dict[str, Any]


def tokenizer_for(template: str) -> Tokenizer:
    """A byte-level tokenizer with the special tokens that stand in a template."""
    return byte_level([BOS, EOS, *sorted({*_SPECIAL.findall(template), "<|im_start|>", "<|im_end|>"})])


def fast_tokenizer(tokenizer: Tokenizer, template: str | dict[str, str]) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, bos_token=BOS, eos_token=EOS, pad_token=EOS
    )


def renderer_for(name: str, **fields: Any) -> ChatRenderer:
    chat = ChatTemplate(variables={"bos_token": BOS, "eos_token": EOS, "pad_token": EOS}, date=DATE, **fields)
    return ChatRenderer(tokenizer_for(TEMPLATES[name]), TEMPLATES[name], chat)


def call(number: int, arguments: Any, name: str = "search") -> dict[str, Any]:
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, content: str, name: str = "search") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "name": name, "content": content}


TOOL: Final = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches the shop.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "Words."}, "page": {"type": "integer"}},
            "required": ["query"],
        },
    },
}
_SYSTEM: Final = {"role": "system", "content": "You are a shopper."}
_ASK: Final = {"role": "user", "content": "Find a laptop below $900."}
_PARALLEL: Final = [
    {"role": "assistant", "content": "Two at once.", "tool_calls": [call(1, {"query": "a"}), call(2, {"query": "b"})]},
    result(1, "12 results"),
    result(2, "no results\n"),
]
_SINGLE: Final = [
    {"role": "assistant", "content": "", "tool_calls": [call(3, {"query": 'é漢 "x" <b>', "page": 2})]},
    result(3, '{"items": []}'),
]
_SILENT: Final = [
    {"role": "assistant", "tool_calls": [call(4, {})]},
    result(4, ""),
]
_THINKING: Final = [
    {"role": "assistant", "reasoning_content": "Which one?", "content": "  The first.  "},
    {"role": "user", "content": "Be quick."},
]
_INLINE: Final = [
    {"role": "assistant", "content": "<think>\nso\n</think>\n\nthen"},
    {"role": "user", "content": "And <|im_end|> or [INST]?"},
]
_END: Final = {"role": "assistant", "content": "click [1]"}
MIDDLES: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    "nothing": [],
    "parallel calls": _PARALLEL,
    "one call": _SINGLE,
    "a silent call": _SILENT,
    "thinking": _THINKING,
    "inline thinking": _INLINE,
    "a long way": [*_SINGLE, *_THINKING, *_SILENT, *_INLINE],
    "a correction": [_END, {"role": "user", "content": "No, another."}],
}
CHATS: Final[Mapping[str, Chat]] = {
    f"{'system, ' if system else ''}{'tools, ' if tools else ''}{name}": {
        "messages": [*([_SYSTEM] if system else []), _ASK, *middle, _END],
        **({"tools": [TOOL]} if tools else {}),
    }
    for system, tools, (name, middle) in product((True, False), (True, False), MIDDLES.items())
}


def as_conversation(chat: Chat) -> Conversation:
    """A chat as the service reads it."""
    return Conversation(
        tuple(map(_message, chat["messages"])), tuple(json.dumps(tool) for tool in chat.get("tools", ()))
    )


def _message(message: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(one["function"]["name"], json.dumps(one["function"]["arguments"]), one["id"])
        for one in message.get("tool_calls", ())
    )
    rest = {key: message[key] for key in ("content", "tool_call_id", "name") if key in message}
    return Message(message["role"], tool_calls=calls, reasoning=message.get("reasoning_content"), **rest)


def sent(chat: Chat) -> dict[str, Any]:
    """A chat as a client sends it: arguments are JSON text."""
    item: dict[str, Any] = json.loads(json.dumps(chat))
    for message in item["messages"]:
        for one in message.get("tool_calls", ()):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    return item
