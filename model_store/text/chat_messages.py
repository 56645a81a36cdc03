"""Chats as the values that a chat template is rendered with.

Special tokens in what people and tools said are no tokens of the template. A private character is put into them, so
that the template's own can be told apart; it is taken out again when the text around them is tokenised.
"""

import json
import re
from collections.abc import Collection
from typing import Any, Final

from agentprm.types import Conversation, Message, ToolCall
from model_store.format.chat import ChatTemplate
from model_store.text.conversations import parsed_arguments
from model_store.text.runs import any_of

_MARK: Final = "\ue000"
_WRITTEN, _WITHIN_TOKEN = _MARK + "\ue001", _MARK + "\ue002"
"""The private character where a text has it itself, and where it keeps a token from being one."""


REASONING: Final = ("thinking", "reasoning_content")
"""The names under which templates read what a model thought. A turn has it under both, as transformers gives it."""


class SpecialText:
    """Marks special tokens in texts that are said, and takes the marks out again.

    Args:
        tokens: the texts of the tokenizer's special tokens.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens = any_of([token for token in tokens if len(token) > 1])

    def marked(self, value: Any) -> Any:
        """A JSON value in which no text holds a special token."""
        match value:
            case str():
                return self._marked_text(value)
            case dict():
                return {self._marked_text(key): self.marked(inner) for key, inner in value.items()}
            case list():
                return [self.marked(inner) for inner in value]
        return value

    def _marked_text(self, text: str) -> str:
        if _MARK in text:
            text = text.replace(_MARK, _WRITTEN)
        if self._tokens is None:
            return text
        while (marked := self._tokens.sub(_with_mark, text)) != text:
            text = marked  # another token may lie within one that is marked
        return text

    @staticmethod
    def unmarked(text: str) -> str:
        """A text of the template without the marks."""
        return text.replace(_WITHIN_TOKEN, "").replace(_WRITTEN, _MARK) if _MARK in text else text


def _with_mark(token: re.Match[str]) -> str:
    return token[0][:1] + _WITHIN_TOKEN + token[0][1:]


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
    said = call.arguments or "{}"  # as vLLM hands over a call without arguments
    arguments = parsed_arguments(said) if chat.arguments == "object" else said
    function = {"name": call.name, "arguments": arguments}
    return {**({} if call.id is None else {"id": call.id}), "type": "function", "function": function}
