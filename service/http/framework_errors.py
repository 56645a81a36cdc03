"""Errors that FastAPI and Starlette raise themselves, turned into errors of this project."""

from typing import NoReturn

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from agentprm.errors import InvalidRequest, MethodNotAllowed, NotFound


def add_exception_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_http_error(request: Request, error: Exception) -> NoReturn:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise NotFound("no such route; /docs lists them")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"{request.method} is not allowed here, but {allow}", details={"allow": allow})
    raise InvalidRequest("the request could not be read") from None
