"""Turns of a chat and definitions of tools in the form of OpenAI's chat completions.

The bodies say which types fields have. ``agentprm.messages`` refuses what would go unread, with its place, so that one
wrong chat is one wrong item and not a wrong request.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from agentprm.wire import branches
from agentprm.wire.chat_fields import TOOL
from agentprm.wire.fields import CallId, FailFastList, Id, Name, Text

Role = Literal["system", "developer", "user", "assistant", "tool"]


def _json_text(value: Any) -> str:
    """Returns a value as JSON text, order of keys kept.

    Raises:
        PydanticCustomError: it is no JSON value, or holds a number that is not finite.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise PydanticCustomError("json_value", "Input should hold JSON values and finite numbers") from None


def _arguments(value: Any) -> Any:
    return _json_text(value) if isinstance(value, dict) else value


def _tool_definition(value: Any) -> str:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "Input should be an object")
    names = TOOL.unread({name: held for name, held in value.items() if name not in TOOL.read})
    if names:
        raise PydanticCustomError("unread_fields", "{refusal}", {"refusal": TOOL.refusal(names)})
    if value.get("type") not in (None, "function") or not _has_a_name(value.get("function")):
        raise PydanticCustomError("tool_definition", "a tool needs the type function and a function with a name")
    return _json_text({name: value[name] for name in value if name in TOOL.read and value[name] is not None})


def _has_a_name(function: Any) -> bool:
    return isinstance(function, dict) and isinstance(function.get("name"), str) and bool(function["name"])


_ARGUMENTS: Final = BeforeValidator(_arguments, json_schema_input_type=str | dict[str, Any])
_DEFINITION: Final = BeforeValidator(_tool_definition, json_schema_input_type=dict[str, Any])

ToolDefinition = Annotated[Text, _DEFINITION, PlainSerializer(json.loads, return_type=dict[str, Any])]
"""Definition of a tool: an object on the wire, here its JSON text with the order of its keys."""


class _ChatObject(BaseModel):
    """Object of a chat. Fields that are not declared are kept, to be judged by ``chat_fields``."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ContentPart(_ChatObject):
    type: str | None = None
    text: Text | None = None
    thinking: Text | None = None
    reasoning: Text | None = None


class FunctionCall(_ChatObject):
    name: Name
    arguments: Annotated[Text, _ARGUMENTS] = Field(
        description="The arguments as the JSON text that the model wrote, or as an object."
    )


class ToolCall(_ChatObject):
    id: CallId | None = None
    type: str | None = None
    function: FunctionCall | None = Field(default=None, description="Needed: only calls of functions are scored.")


class Message(_ChatObject):
    """One turn of an OpenAI chat. Assistant turns are actions; user and tool turns are observations.

    ``docs/chats.md`` lists the fields that are read and those that are ignored. Any other field must hold nothing: text
    that is not read would change the score silently.
    """

    role: Role | None = Field(
        default=None, description="Needed in `messages`; a candidate is the assistant's without it."
    )
    content: Annotated[Text, branches.TEXT] | Annotated[FailFastList[ContentPart], branches.PARTS] | None = None
    reasoning_content: Text | None = Field(default=None, description="What the assistant thought before it spoke.")
    reasoning: Text | None = Field(default=None, description="Same as `reasoning_content`.")
    thinking: Text | None = Field(default=None, description="Same as `reasoning_content`.")
    tool_calls: FailFastList[ToolCall] | None = None
    tool_call_id: CallId | None = None
    name: Id | None = None
    tool_name: Id | None = Field(default=None, description="Same as `name`, of a tool message.")
