"""Reading of request bodies, and what a caller is told about a wrong one."""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, NoReturn, TypeVar

from pydantic import ValidationError

from agentprm.errors import InvalidRequest
from agentprm.wire.branches import meant
from agentprm.wire.fields import Body, ErrorCounts, TooManyErrors

MAX_REPORTED_ERRORS: Final = 20
MAX_REPORTED_NAME: Final = 64

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # RFC 8259 lets a reader ignore it

B = TypeVar("B", bound=Body)


def decode(kind: type[B], body: bytes) -> B:
    """Returns a request's body from its JSON in UTF-8.

    Raises:
        InvalidRequest: it is no JSON, or breaks the contract; ``details`` says where.
    """
    if not body:
        raise invalid_request([{"loc": ["body"], "msg": "Field required", "type": "missing"}])
    body = body.removeprefix(_BYTE_ORDER_MARK)
    try:
        return kind.model_validate_json(body, context=ErrorCounts())
    except ValidationError as error:
        errors = meant(error.errors(include_url=False, include_context=False, include_input=False))
        refusal = invalid_request({**each, "loc": ("body", *each["loc"])} for each in errors)
    except TooManyErrors as error:
        refusal = InvalidRequest(f"body: {error}")
    # Outside the block: pydantic's error holds the input, and would live as long as this one.
    if b'"on_error"' in body and (lenient := _with_refused_items(kind, body)) is not None:
        return lenient
    raise refusal


def _with_refused_items(kind: type[B], body: bytes) -> B | None:
    """Returns a body whose wrong items are refused one by one, None if it does not ask for that or is wrong elsewhere.

    Validation tells items apart only in Python's objects: those of JSON text are faster to read, but cannot be kept.
    """
    try:
        fields = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("on_error") != "item":
        return None
    try:
        return kind.model_validate(fields, context=ErrorCounts())
    except ValidationError:
        return None
    except TooManyErrors as error:
        refusal = InvalidRequest(f"body: {error}")
    raise refusal


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def invalid_request(errors: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Returns the error that reports pydantic's first errors, without the input that they quote."""
    reported = [
        {"loc": [_safe_part(part) for part in each["loc"]], "msg": each["msg"], "type": each["type"]}
        for each in islice(errors, MAX_REPORTED_ERRORS)
    ]
    where = ".".join(map(str, reported[0]["loc"]))
    return InvalidRequest(f"{where}: {reported[0]['msg']}", details={"errors": reported})


def _safe_part(part: int | str) -> int | str:
    """Returns a part of a location, cut to a length and encodable: an unknown field's name is the caller's text."""
    return part if isinstance(part, int) else part[:MAX_REPORTED_NAME].encode(errors="replace").decode()
