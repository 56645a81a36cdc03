"""The parts of an application that its routes use. ``service.app`` stores them; routes read them from a request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request

from service.generation.policy import Policy
from service.http.loop_turns import LoopTurns
from service.models.catalog import Models
from service.models.registry import Registry
from service.recording.recorder import Recorder


@dataclass(frozen=True, slots=True)
class RouteState:
    """Everything that the routes of one application read."""

    models: Models
    registry: Registry
    policy: Policy | None
    """Samples candidates if a request asks for that; None: such a request is refused."""
    recorder: Recorder | None
    """Writes scored trajectories to rollout files; None: nothing is recorded."""
    max_items: int
    max_candidates: int
    large_bodies: LoopTurns
    """Turns of bodies that take long to decode."""
    why_broken: Callable[[], str | None]
    """Returns why only a new process can help; None while none is needed."""
    why_not_ready: Callable[[], str | None]
    """Returns why a request sent now would not be scored; None if it would be."""
    exposition: Callable[[], Awaitable[bytes]]
    """Returns the text of ``/metrics``."""


def store_state(app: FastAPI, state: RouteState) -> None:
    app.state.routes = state


def route_state(request: Request) -> RouteState:
    state: RouteState = request.app.state.routes
    return state
