"""What FastAPI and Starlette refuse by themselves, as errors of ours."""

from collections.abc import Sequence
from typing import Final, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from agentprm.errors import InvalidRequest, MethodNotAllowed, NotFound

MAX_REPORTED_ERRORS: Final = 20
MAX_REPORTED_NAME: Final = 64


def add_refusals(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_http)


async def _refuse_invalid(_: Request, error: Exception) -> NoReturn:
    """FastAPI's complaints without the input they quote: no agent's text may leave in an error."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {"loc": [_place(part) for part in wrong["loc"]], "msg": wrong["msg"], "type": wrong["type"]}
        for wrong in error.errors()[:MAX_REPORTED_ERRORS]
    ]
    raise InvalidRequest(_sentence(errors[0]["loc"], errors[0]["msg"]), details={"errors": errors}) from None


def _place(part: int | str) -> int | str:
    """A part of a location; the name of an unknown field is the caller's, so it may be long or no text at all."""
    return part if isinstance(part, int) else part[:MAX_REPORTED_NAME].encode(errors="replace").decode()


def _sentence(loc: Sequence[int | str], message: str) -> str:
    return f"{'.'.join(map(str, loc))}: {message}"


async def _refuse_http(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise NotFound("no such route; /docs lists them")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"{request.method} is not allowed here, but {allow}", details={"allow": allow})
    raise InvalidRequest("the body is not JSON in UTF-8, or nests too deeply") from None
