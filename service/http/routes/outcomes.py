"""The route that takes what became of recorded trajectories."""

from typing import Annotated, Final

from fastapi import APIRouter, Body, Request, Response

from agentprm import wire
from agentprm.errors import (
    Forbidden,
    InternalError,
    InvalidRequest,
    NotReady,
    Overloaded,
    TooLong,
    TooSlow,
    Unauthorized,
    UnsupportedMediaType,
)
from agentprm.rollouts import OutcomeLine
from service.http import examples
from service.http.openapi import documented_errors
from service.http.state import route_state

OUTCOMES: Final = "/outcomes"

router = APIRouter(
    tags=["recording"],
    responses=documented_errors(
        Unauthorized,
        Forbidden,
        InvalidRequest,
        TooSlow,
        TooLong,
        UnsupportedMediaType,
        Overloaded,
        NotReady,
        InternalError,
    ),
)


@router.post(OUTCOMES, response_model=wire.OutcomeReply)
async def outcomes(
    request: Request, body: Annotated[OutcomeLine, Body(openapi_examples=examples.OUTCOMES)]
) -> Response:
    """Records what became of a trajectory. Any replica takes it: training joins it by `trajectory_id`."""
    recorder = route_state(request).recorder
    if recorder is None:
        raise InvalidRequest("this service records nothing: its operator has not set AGENTPRM_RECORD")
    recorder.add_outcome(body, request.state.body_bytes)
    reply = wire.OutcomeReply(trajectory_id=body.trajectory_id)
    return Response(reply.model_dump_json(), media_type="application/json")
