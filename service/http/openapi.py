"""Errors and replies of routes as the OpenAPI page documents them."""

from typing import Any

from agentprm import wire
from agentprm.errors import (
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    RequestError,
    TooLong,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
    UpstreamFailed,
)


def documented(reply: type[wire.Body], example: dict[str, Any]) -> dict[str, Any]:
    """Arguments that document a score route's reply and errors. ``reply_with`` serialises the reply, not FastAPI."""
    errors = documented_errors(
        Unauthorized,
        Forbidden,
        InvalidRequest,
        TooSlow,
        TooLong,
        UnsupportedMediaType,
        ModelNotFound,
        Overloaded,
        UpstreamFailed,
        NotReady,
        DeadlineExceeded,
        InternalError,
    )
    return {
        "response_model": reply,
        "responses": {200: {"content": {"application/json": {"example": example}}}, **errors},
    }


def documented_errors(*kinds: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    return {kind.status: {"model": wire.ErrorReply, "description": f"`{kind.code}`"} for kind in kinds}
