"""Message objects of any library as dictionaries."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel

from agentprm.chats import from_objects
from agentprm.errors import InvalidRequest


class Role(StrEnum):
    ASSISTANT = "assistant"


@dataclass
class Function:
    name: str
    arguments: Any
    description: str | None = None


@dataclass
class Call:
    function: Function
    id: str
    type: str = "function"


@dataclass
class Message:
    """As smolagents holds one."""

    role: Role
    content: list[dict[str, Any]] | None = None
    tool_calls: list[Call] | None = None


class Model(BaseModel):
    """As openai holds one."""

    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


CALL = {"function": {"name": "look", "arguments": {"where": None}}, "id": "1", "type": "function"}


def test_dataclasses_models_and_mappings_become_dictionaries() -> None:
    given: list[Any] = [
        Message(Role.ASSISTANT, [{"type": "text", "text": "Hi."}], [Call(Function("look", {"where": None}), "1")]),
        Model(role="assistant", tool_calls=[CALL]),
        {"role": "tool", "content": "x"},
    ]
    assert from_objects(given) == [
        {"role": "assistant", "content": [{"type": "text", "text": "Hi."}], "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "x"},
    ]


@pytest.mark.parametrize("value", ["Hi.", None, 5, ("user", "Hi."), Model])
def test_what_has_no_fields_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\.1 must be a mapping, a pydantic model or a dataclass"):
        from_objects([{"role": "user"}, value])
