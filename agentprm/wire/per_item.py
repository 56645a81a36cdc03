"""Items that are refused one by one: with ``on_error: "item"`` a wrong one does not refuse the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from pydantic import Field, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, core_schema
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from agentprm.errors import InvalidRequest
from agentprm.wire.branches import meant
from agentprm.wire.decode import invalid_request
from agentprm.wire.fields import MAX_NAME, TooManyErrors

OnError = Literal["item", "request"]
"""Whose error the error of one item is: that item's result, or the answer to the whole request."""

MAX_REFUSED_ITEMS: Final = 1024
"""Most wrong items of a body that are told apart. The next one refuses the body: each costs some 20 us."""
MAX_ERRORS_OF_ITEM: Final = 5


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """An item that breaks the contract. ``errors`` are pydantic's first, whose places begin within the item."""

    id: str | None
    errors: tuple[Mapping[str, Any], ...]

    def error(self, index: int, where: tuple[str, ...] = ("body", "items")) -> InvalidRequest:
        """Returns the error that a request with this item at ``index`` would be refused with, and the index."""
        refusal = invalid_request({**each, "loc": (*where, index, *each["loc"])} for each in self.errors)
        return InvalidRequest(refusal.message, details={"item": index, **refusal.details})


class OrRefused:
    """Annotates ``Item | RefusedItem``: a wrong item becomes a RefusedItem if the field ``on_error`` says "item".

    Only in Python's objects; ``decode`` makes some of JSON text that has a wrong item. The JSON schema is the item's.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        item = handler(get_args(source)[0])
        either = core_schema.with_info_wrap_validator_function(_item_or_refused, item)
        return core_schema.json_or_python_schema(item, either)


def on_error_field() -> Any:
    """Returns the field ``on_error``, which a request declares before its items."""
    return Field(
        "request",
        exclude_if=lambda on_error: on_error == "request",
        description="With `item` the error of one item is its result, and the others are scored; "
        "with `request` it is the answer to the whole request.",
    )


def _item_or_refused(value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if info.data.get("on_error") != "item":
        return validate(value)
    try:
        return validate(value)
    except ValidationError as error:
        found = meant(error.errors(include_url=False, include_context=False, include_input=False))
        errors = found[:MAX_ERRORS_OF_ITEM]
    except TooManyErrors as error:
        errors = [{"loc": (), "msg": str(error), "type": "too_many_errors"}]
    if info.context is not None:
        info.context.count_refused_item(MAX_REFUSED_ITEMS)
    return RefusedItem(_id(value), tuple(errors))


def _id(item: Any) -> str | None:
    """Returns the item's id if it is one that a result can echo."""
    found = item.get("id") if isinstance(item, Mapping) else None
    if not isinstance(found, str) or len(found) > MAX_NAME:
        return None
    try:
        found.encode()
    except UnicodeEncodeError:
        return None
    return found
