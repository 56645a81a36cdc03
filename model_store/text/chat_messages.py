"""Chats as the values that a chat template is rendered with.

Special tokens in what people and tools said are no tokens of the template. They stand between two marks, as
transformers puts them with ``sanitize_control_tokens``, so that the template's own can be told apart.
"""

import json
import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from agentprm.types import Conversation, Message, ToolCall
from model_store.format.chat import ChatTemplate
from model_store.text.conversations import parsed_arguments
from model_store.text.runs import any_of

BEGIN: Final = "\ue000"
END: Final = "\ue001"
"""Private characters around a special token that somebody said."""
_WRITTEN: Final = "\ue002"
"""Stands before each of these three characters that somebody said."""
_OWN: Final = re.compile(r"[\ue000-\ue002]|(?<=\\)ue00[0-2]")
_EITHER: Final = {mark: rf"(?:{mark}|\\u{ord(mark):04x})" for mark in (BEGIN, END, _WRITTEN)}
"""A mark in a template's text. JSON in ASCII and Python's ``repr`` both write it as an escape of six characters."""

_HINTS: Final = (BEGIN, END, _WRITTEN, "ue00")
"""Texts of which a text with a mark has one. Looking for them is much faster than for the patterns."""

REASONING: Final = ("thinking", "reasoning_content")
"""The names under which templates read what a model thought. A turn has it under both, as transformers gives it."""


class Piece(NamedTuple):
    """A part of a template's text. ``said`` is a special token that somebody said: it is plain text."""

    text: str
    said: bool


class SpecialText:
    """Marks special tokens in texts that are said, and finds the marks in a template's text.

    Args:
        tokens: the texts of the tokenizer's special tokens.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens = any_of(tokens)
        token = self._tokens.pattern if self._tokens else "(?!)"
        begin, end, written = _EITHER.values()
        self._marks = re.compile(f"{written}(\\\\ue00[0-2]|.)|{begin}({token}){end}|{begin}|{end}|{written}", re.DOTALL)

    def marked(self, value: Any) -> Any:
        """A JSON value in whose texts each special token stands between marks."""
        match value:
            case str():
                return self._marked_text(value)
            case dict():
                return {self._marked_text(key): self.marked(inner) for key, inner in value.items()}
            case list():
                return [self.marked(inner) for inner in value]
        return value

    def _marked_text(self, text: str) -> str:
        if _may_hold_marks(text):
            text = _OWN.sub(lambda own: _WRITTEN + own[0], text)
        return self._tokens.sub(lambda token: BEGIN + token[0] + END, text) if self._tokens else text

    def pieces(self, text: str) -> list[Piece]:
        """Cuts a template's text at the marks, which are in no piece. The first piece may be empty.

        A template that splits a text can part the marks of a token. They still keep what is beside them apart.
        """
        if not _may_hold_marks(text):
            return [Piece(text, said=False)]
        pieces, text_before, begin = list[Piece](), "", 0
        for mark in self._marks.finditer(text):
            written, token = mark.groups()
            text_before += text[begin : mark.start()] + (written or "")
            begin = mark.end()
            if written is None:
                pieces += [Piece(text_before, said=False), Piece(token or "", said=True)]
                text_before = ""
        pieces.append(Piece(text_before + text[begin:], said=False))
        first, *others = pieces
        return [first, *(piece for piece in others if piece.text)]


def _may_hold_marks(text: str) -> bool:
    return any(hint in text for hint in _HINTS)


def as_values(message: Message, chat: ChatTemplate) -> dict[str, Any]:
    """A turn as a template reads it: with the keys of an OpenAI chat, without those that are absent."""
    values: dict[str, Any] = {"role": message.role}
    if message.reasoning is not None:
        values |= dict.fromkeys(REASONING, message.reasoning)
    if message.content is not None or chat.empty_content:
        values["content"] = _content(message, chat)
    if message.tool_calls:
        values["tool_calls"] = [_tool_call(call, chat) for call in message.tool_calls]
    names = {"tool_call_id": message.tool_call_id, "name": message.name}
    return values | {name: value for name, value in names.items() if value is not None}


def tools_as_values(conversation: Conversation) -> list[Any] | None:
    """The definitions of a chat's tools; None if it has none."""
    return [json.loads(tool) for tool in conversation.tools] or None


def _content(message: Message, chat: ChatTemplate) -> str | list[dict[str, str]]:
    content = message.content or ""
    if chat.content == "text" or (chat.content == "both" and isinstance(content, str)):
        return message.text
    texts = [content] if isinstance(content, str) else content
    return [{"type": "text", "text": text} for text in texts]


def _tool_call(call: ToolCall, chat: ChatTemplate) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _arguments(call.arguments, chat)}
    return {**({} if call.id is None else {"id": call.id}), "type": "function", "function": function}


def _arguments(text: str, chat: ChatTemplate) -> Any:
    """Arguments as the template reads them. An empty text is an empty object to it, as in vLLM."""
    if chat.arguments == "text":
        return text
    return parsed_arguments(text) if text else {}
