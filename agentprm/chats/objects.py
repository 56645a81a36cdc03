"""Message objects of any library as dictionaries."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

from agentprm.errors import InvalidRequest

Fields = dict[str, Any]


class _Model(Protocol):
    """A pydantic model."""

    def model_dump(self, *, exclude_none: bool = False) -> Fields: ...


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


MessageObject = Mapping[str, Any] | _Model | _Dataclass
"""A message as any library holds it."""


class Object(Fields):
    """Fields of an object that must have those which are asked for by ``[]``."""

    def __init__(self, place: str, fields: Fields) -> None:
        super().__init__(fields)
        self._place = place

    def __missing__(self, name: str) -> Any:
        raise InvalidRequest(f"{self._place}: {name} is missing")


def from_objects(messages: Iterable[MessageObject]) -> list[Fields]:
    """Returns messages that are pydantic models, dataclasses or mappings as dictionaries, without fields that are None.

    Raises:
        InvalidRequest: a message is none of these.
    """
    return [as_fields(f"messages.{at}", message) for at, message in enumerate(messages)]


def is_object(value: object) -> bool:
    """Returns whether ``as_fields`` takes a value: a pydantic model, a dataclass or a mapping."""
    return isinstance(value, Mapping) or (not isinstance(value, type) and (_dumps(value) or is_dataclass(value)))


def as_fields(place: str, value: Any) -> Object:
    """Returns the fields of an object, nested objects included; those that are None are left out.

    None within a mapping stays, as it may be an argument of a tool call.

    Raises:
        InvalidRequest: the value has no fields.
    """
    if not is_object(value):
        raise InvalidRequest(f"{place} must be a mapping, a pydantic model or a dataclass, not {type(value).__name__}")
    return Object(place, _plain(value))


def objects(place: str, values: Any) -> list[tuple[str, Object]]:
    """Returns the objects of a list, each with its place.

    Raises:
        InvalidRequest: it is no list, or not of objects.
    """
    if not isinstance(values, list | tuple):
        raise InvalidRequest(f"{place} must be a text or a list of objects, not {type(values).__name__}")
    return [(f"{place}.{at}", as_fields(f"{place}.{at}", value)) for at, value in enumerate(values)]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return _plain_fields(value) if is_object(value) else value


def _plain_fields(value: Any) -> Fields:
    if isinstance(value, Mapping):
        return {name: _plain(held) for name, held in value.items()}
    if _dumps(value):
        return _plain_fields(value.model_dump(exclude_none=True))
    named = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _plain(held) for name, held in named.items() if held is not None}


def _dumps(value: object) -> bool:
    return callable(getattr(value, "model_dump", None))
