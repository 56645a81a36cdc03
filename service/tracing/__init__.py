"""Traces over OTLP: a span for each request and each of its stages, an event for each score (docs/tracing.md).

OpenTelemetry is imported only when traces are on, because it is an optional requirement.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import NamedTuple

from service.http.middleware.asgi import App
from service.settings import SettingsError, Telemetry


class Tracing(NamedTuple):
    """``middleware(app, routes=, quiet=)`` makes the outermost layer; ``close`` sends the last spans and events."""

    middleware: Callable[..., App]
    close: Callable[[], Awaitable[None]]


def open_tracing(otel: Telemetry) -> Tracing | None:
    """Returns the tracing that ``AGENTPRM_OTEL`` asks for; None if it is off.

    Raises:
        SettingsError: a package is missing, or an ``OTEL_`` variable has a value that cannot be used.
    """
    if otel == "off":
        return None
    try:
        exports, requests = (import_module(f"service.tracing.{name}") for name in ("exports", "requests"))
        traces = exports.Exports(events=otel == "events")
    except ImportError as error:
        raise SettingsError(
            f"AGENTPRM_OTEL is {otel!r} but {error.name} is not installed; pip install 'agentprm[otel]' brings it"
        ) from error
    except ValueError as error:
        raise SettingsError(f"AGENTPRM_OTEL is {otel!r} but an OTEL_ variable cannot be used: {error}") from error
    return Tracing(partial(requests.TracedRequests, exports=traces), traces.close)
