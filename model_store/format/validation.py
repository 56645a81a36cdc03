"""Reads JSON strictly into dataclasses by pydantic, and says in one sentence what is wrong with it."""

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar, get_args

from pydantic import ConfigDict, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import custom_error_schema

from model_store.errors import ManifestInvalid, one_line

T = TypeVar("T")
STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
"""Every field there, none unknown, no value coerced; holds for the dataclasses within a dataclass too."""
NOT_NULL: Final = GetPydanticSchema(lambda kind, handler: handler(get_args(kind)[0]))
"""Marks an ``X | None`` that is None when the field is absent: JSON may leave it out, but not write null."""
TextPair = Annotated[
    tuple[str, str],
    GetPydanticSchema(
        lambda kind, handler: custom_error_schema(
            handler(kind), custom_error_type="text_pair", custom_error_message="must be a list of 2 texts"
        )
    ),
]
MAX_NAMES: Final = 5
"""Missing or unknown fields that one sentence lists."""
_COMPLAINTS: Final = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "dataclass_type": "must be an object",
    "tuple_type": "must be a list",
}


def read_strictly(adapter: TypeAdapter[T], text: bytes, file: str) -> T:
    """The value that JSON in UTF-8 holds.

    Raises:
        ManifestInvalid: a missing or unknown field, or a value of the wrong type; names ``file`` and the field.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise ManifestInvalid(f"{file}{_sentence(errors)}") from error


def _sentence(errors: Sequence[ErrorDetails]) -> str:
    """Missing fields first, then unknown ones: either often explains the other errors."""
    for kind, one_of_them, several in (
        ("missing", "is missing", "are missing"),
        ("unexpected_keyword_argument", "is not a field", "are not fields"),
    ):
        found = [error["loc"] for error in errors if error["type"] == kind]
        if found:
            names = sorted(str(loc[-1]) for loc in found if loc[:-1] == found[0][:-1])
            listed = ", ".join(one_line(name) or "''" for name in names[:MAX_NAMES])
            return f"{_place(found[0][:-1])}: {listed} {one_of_them if len(names) == 1 else several}"
    return f"{_place(errors[0]['loc'])} {_complaint(errors[0])}"


def _place(loc: Sequence[str | int]) -> str:
    """``: score: tokens[0]``; only names of the dataclasses, never text of the file."""
    return "".join(f"[{part}]" if isinstance(part, int) else f": {part}" for part in loc)


def _complaint(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return f"must be one of {error['ctx']['expected']}"
    return _COMPLAINTS.get(error["type"]) or one_line(error["msg"])
