"""What the routes of one application work with. ``service.app`` stores it; routes read it from their request."""

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request

from service.generation.policy import Policy
from service.models.catalog import Models
from service.models.registry import Registry


@dataclass(frozen=True, slots=True)
class RouteState:
    """The parts of an application that its routes use."""

    models: Models
    registry: Registry
    policy: Policy | None
    """Samples candidates if a request asks for that; None: such a request is refused."""
    max_items: int
    max_candidates: int
    why_broken: Callable[[], str | None]
    """Says why only a new process can help; None while that is not so."""
    why_not_ready: Callable[[], str | None]
    """Says why a request sent now would not be scored; None if it would be."""
    exposition: Callable[[], bytes]
    """The text of ``/metrics``."""


def store_state(app: FastAPI, state: RouteState) -> None:
    app.state.routes = state


def route_state(request: Request) -> RouteState:
    state: RouteState = request.app.state.routes
    return state
