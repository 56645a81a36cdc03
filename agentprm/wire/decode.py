"""Reading of request bodies, and what a caller is told about a wrong one."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from agentprm.errors import InvalidRequest
from agentprm.wire.fields import Body

MAX_REPORTED_ERRORS: Final = 20
MAX_REPORTED_NAME: Final = 64
MAX_DESCRIBED_ERRORS: Final = 1000
"""Most errors of which pydantic makes descriptions. It makes them for all or for none."""

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
        return kind.model_validate_json(body.removeprefix(_BYTE_ORDER_MARK))
    except ValidationError as error:
        if error.error_count() > MAX_DESCRIBED_ERRORS:
            raise InvalidRequest(f"body: {error.error_count()} unknown or wrong fields") from None
        described = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_request({**each, "loc": ("body", *each["loc"])} for each in described) from None


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
