"""Text, body and reply base classes of the wire bodies."""

from typing import Annotated, Any, Final, Never, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

MAX_NAME: Final = 1024
"""Most characters of a name, an id or a reference. Real ones have less than a hundred."""
MAX_CALL_ID: Final = 65_536
"""Most characters of a tool call's id. Some servers put a signature of several thousand into it."""
MAX_UNKNOWN: Final = 100
"""Most unknown fields of a body that are told apart. The next one ends the validation."""

T = TypeVar("T")


def _of_whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_of_whole_characters)]
"""Text without lone surrogates: JSON can write one, but no tokenizer takes it and no reply can echo it."""
NonEmpty = Annotated[str, Field(min_length=1)]
"""Text of one character or more. Pydantic refuses lone surrogates itself where it checks a length."""
Id = Annotated[str, Field(max_length=MAX_NAME)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
CallId = Annotated[str, Field(max_length=MAX_CALL_ID)]
FailFastList = Annotated[list[T], Field(fail_fast=True)]
"""List that is refused at its first wrong entry. Errors for each of many wrong entries would take minutes to build.

``JSONSize`` bounds its length.
"""
Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]
Unsent = SkipJsonSchema[None]  # a header that is absent: no header can hold null, so the schema does not offer it


class TooManyErrors(Exception):
    """Ends a validation at once: pydantic collects ValueErrors only."""


class ErrorCounts:
    """Context of a validation: the errors of which a body may have only so many."""

    def __init__(self) -> None:
        self._unknown = 0
        self._refused_items = 0

    def count_unknown(self, most: int) -> None:
        self._unknown += 1
        if self._unknown > most:
            raise TooManyErrors(f"more than {most} unknown fields")

    def count_refused_item(self, most: int) -> None:
        self._refused_items += 1
        if self._refused_items > most:
            raise TooManyErrors(f"more than {most} wrong items")


def _refuse_unknown(_: str, info: ValidationInfo) -> Never:
    """Refuses a field as ``extra="forbid"`` does, which however has no bound: each field of 100,000 is one more error.

    The context of a validation, if it has one, counts them.
    """
    if info.context is not None:
        info.context.count_unknown(MAX_UNKNOWN)
    raise PydanticCustomError("extra_forbidden", "Extra inputs are not permitted")


class Body(BaseModel):
    """Body without unknown fields."""

    model_config = ConfigDict(
        extra="allow", frozen=True, protected_namespaces=(), json_schema_extra={"additionalProperties": False}
    )
    # ``init=False`` is for type checkers: it is no argument.
    __pydantic_extra__: dict[Annotated[str, BeforeValidator(_refuse_unknown)], Any] = Field(init=False)


class Reply(Body):
    model_config = ConfigDict(extra="ignore", json_schema_extra=None)
