"""The fields of a chat: which are read, which are ignored and which are refused, at each level of it.

``docs/chats.md`` shows this table. It holds for ``messages``, ``candidates`` and ``tools``; everywhere else an unknown
field is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

NESTED: Final = "provider_specific_fields"
"""Field of LiteLLM that repeats fields of the object around it. What it holds is judged as if it stood there."""
MAX_NAMES: Final = 5
"""Most fields that one error names."""
MAX_NAME: Final = 64
"""Most characters of a field's name in an error."""
_CONTAINERS: Final = (dict, list, tuple)


@dataclass(frozen=True, slots=True)
class Level:
    """One kind of object within a chat.

    Attributes:
        name: what the object is called in the documentation.
        read: field -> what it is.
        ignored: fields that hold no text which the agent saw or wrote, whatever they hold.
        beside_reasoning: fields that repeat the reasoning of a turn. They are ignored if the turn has reasoning.
        refused: field -> what to send instead, or why its text cannot be scored.
    """

    name: str
    read: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    beside_reasoning: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def unread(self, others: Mapping[str, Any] | None, *, has_reasoning: bool = False) -> list[str]:
        """Names of the fields in ``others`` that would be lost; ``others`` are the fields beside the read ones.

        A field that holds nothing is never among them.
        """
        if not others:
            return []
        skipped = {*self.ignored, *(self.beside_reasoning if has_reasoning else ())}
        names = [name for name, value in others.items() if value and name not in skipped and not holds_nothing(value)]
        if NESTED in names and isinstance(others[NESTED], dict):
            names.remove(NESTED)
            nested = {name: value for name, value in others[NESTED].items() if name not in skipped}
            names += [f"{NESTED}.{name}" for name, value in nested.items() if not holds_nothing(value)]
        return sorted(names)

    def refusal(self, names: Iterable[str]) -> str:
        """A sentence that names unread fields, with the advice of the table."""
        shown = list(names)[:MAX_NAMES]
        advice = "; ".join(dict.fromkeys(self.refused[name] for name in shown if name in self.refused))
        listed = ", ".join(name[:MAX_NAME] for name in shown)
        return f"{self.name} fields that are not scored: {listed}" + (f" ({advice})" if advice else "")


def holds_nothing(value: Any) -> bool:
    """Returns whether a value is null, false, a number or empty, or an array or object of such values alone."""
    if not isinstance(value, _CONTAINERS):
        return _is_nothing(value)
    waiting = [value]
    while waiting:
        held = waiting.pop()
        for part in held.values() if isinstance(held, dict) else held:
            if isinstance(part, _CONTAINERS):
                waiting.append(part)
            elif not _is_nothing(part):
                return False
    return True


def _is_nothing(value: Any) -> bool:
    return not value or (isinstance(value, int | float) and value is not True)


_OF_A_REPLY: Final = (
    "id",
    "object",
    "type",
    "status",
    "index",
    "phase",
    "raw",
    "model",
    "created",
    "created_at",
    "timestamp",
    "finish_reason",
    "stop_reason",
    "stop_sequence",
    "usage",
    "usage_metadata",
    "response_metadata",
    "system_fingerprint",
    "logprobs",
)
"""Fields that tell about the reply a message came in."""
_MARKS: Final = ("annotations", "cache_control", "extra_content", "metadata", "signature", "thought_signature")
"""Marks of a server for itself or for its user."""

MESSAGE: Final = Level(
    "message",
    read={
        "role": "`system`, `developer`, `user`, `assistant` or `tool`. A candidate needs none: it is the assistant's.",
        "content": "A text, a list of content parts, or null.",
        "reasoning_content": "What the assistant thought before it spoke.",
        "reasoning": "The same, as vLLM and OpenRouter name it.",
        "thinking": "The same, as Ollama names it.",
        "tool_calls": "A list of tool calls; assistant only.",
        "tool_call_id": "The id of the call that a tool message answers.",
        "name": "Who speaks, or the tool that answers.",
        "tool_name": "The tool that answers, as Ollama names it.",
    },
    ignored=(*_OF_A_REPLY, *_MARKS, "artifact", "loss", "train"),
    beside_reasoning=("reasoning_content", "reasoning_details", "thinking_blocks"),
    refused={
        "audio": "only text is scored",
        "function_call": "send it as tool_calls",
        "images": "only text is scored",
        "reasoning_details": "send their text as reasoning_content",
        "refusal": "send its text as content",
        "thinking_blocks": "send their text as reasoning_content",
    },
)
PART: Final = Level(
    "content part",
    read={
        "type": "`text`, `input_text`, `output_text`; `thinking`, `reasoning`, `reasoning_text` of the assistant.",
        "text": "The text of the part.",
        "thinking": "The text of a part of type `thinking`.",
        "reasoning": "The text of a part of type `reasoning`.",
    },
    ignored=(*_MARKS, "_meta", "citations", "id", "index", "logprobs", "status"),
)
TOOL_CALL: Final = Level(
    "tool call",
    read={
        "id": "Binds the tool message that answers.",
        "type": "`function`, or absent.",
        "function": "The function that is called.",
    },
    ignored=(*_MARKS, "caller", "index", "status"),
    refused={
        "args": "send function with name and arguments",
        "arguments": "send function with name and arguments",
        "custom": "only calls of functions are scored",
        "name": "send function with name and arguments",
    },
)
FUNCTION: Final = Level(
    "function",
    read={
        "name": "The name of the function.",
        "arguments": "The JSON text that the model wrote, or an object.",
    },
    ignored=(*_MARKS, "parsed_arguments"),
)
TOOL: Final = Level(
    "tool definition",
    read={
        "type": "`function`, or absent.",
        "function": "Name, description, parameters and whatever else it holds: the template gets all of it.",
    },
    ignored=("cache_control", "defer_loading", "eager_input_streaming", "allowed_callers"),
    refused={
        "description": "send function with name, description and parameters",
        "input_schema": "send function with name, description and parameters",
        "name": "send function with name, description and parameters",
        "parameters": "send function with name, description and parameters",
    },
)
LEVELS: Final = (MESSAGE, PART, TOOL_CALL, FUNCTION, TOOL)

TEXT_PARTS: Final = ("text", "input_text", "output_text")
REASONING_PARTS: Final = ("thinking", "reasoning", "reasoning_text")
REFUSED_PARTS: Final = (
    "audio",
    "document",
    "file",
    "image",
    "image_url",
    "input_audio",
    "input_file",
    "input_image",
    "redacted_thinking",
    "refusal",
    "resource",
    "resource_link",
    "server_tool_use",
    "tool_result",
    "tool_use",
    "video",
    "video_url",
    "web_search_tool_result",
)
"""Types that an error names. Any other type is the caller's own text, which no reply repeats."""
