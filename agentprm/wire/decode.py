"""Reading of request bodies, and what a caller is told about a wrong one."""

from collections.abc import Iterable, Mapping
from itertools import count, islice
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from agentprm.errors import InvalidRequest
from agentprm.wire.branches import meant
from agentprm.wire.fields import MAX_UNKNOWN, Body, TooManyUnknown

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
    try:
        return kind.model_validate_json(body.removeprefix(_BYTE_ORDER_MARK), context=count())
    except ValidationError as error:
        errors = meant(error.errors(include_url=False, include_context=False, include_input=False))
        refusal = invalid_request({**each, "loc": ("body", *each["loc"])} for each in errors)
    except TooManyUnknown:
        refusal = InvalidRequest(f"body: more than {MAX_UNKNOWN} unknown fields")
    raise refusal  # outside the block: pydantic's error holds the input, and would live as long as this one


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
