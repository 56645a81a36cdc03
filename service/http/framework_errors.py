"""Errors that FastAPI and Starlette raise themselves, turned into errors of this project."""

from collections.abc import Sequence
from typing import Final, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agentprm.errors import InvalidRequest, MethodNotAllowed, NotFound

MAX_REPORTED_ERRORS: Final = 20
MAX_REPORTED_NAME: Final = 64


def add_exception_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_validation_error(_: Request, error: Exception) -> NoReturn:
    """Raises InvalidRequest without the input that FastAPI quotes: an error must not repeat an agent's text."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"loc": [_safe_part(part) for part in each["loc"]], "msg": each["msg"], "type": each["type"]}
        for each in error.errors()[:MAX_REPORTED_ERRORS]
    ]
    raise InvalidRequest(_sentence(errors[0]["loc"], errors[0]["msg"]), details={"errors": errors}) from None


def _safe_part(part: int | str) -> int | str:
    """Returns a part of a location, cut to a length and encodable: an unknown field's name is the caller's text."""
    return part if isinstance(part, int) else part[:MAX_REPORTED_NAME].encode(errors="replace").decode()


def _sentence(loc: Sequence[int | str], message: str) -> str:
    return f"{'.'.join(map(str, loc))}: {message}"


async def _on_http_error(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise NotFound("no such route; /docs lists them")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"{request.method} is not allowed here, but {allow}", details={"allow": allow})
    raise InvalidRequest("the body is not JSON in UTF-8, or nests too deeply") from None
