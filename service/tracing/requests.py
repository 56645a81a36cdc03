"""A request as a span, its stages as children; the outermost middleware when traces are on.

The caller's ``traceparent`` (W3C Trace Context) is the parent. Only the start of the span happens before the reply is
sent. Names follow the semantic conventions for HTTP and generative AI where there are any. A caller's text never
becomes an attribute, nor does a path that is no route.
"""

from collections.abc import Collection, Mapping
from time import perf_counter, time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentprm import wire
from service.http.middleware.asgi import CLIENT_LEFT, App, Message, Receive, Scope, Send, header
from service.tracing.events import MAX_EVENTS, emit
from service.tracing.exports import Exports

_W3C: Final = TraceContextTextMapPropagator()
_PROPAGATED: Final = ("traceparent", "tracestate")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})


class TracedRequests:
    """Makes a span for every request, except those of ``quiet`` paths.

    Args:
        app: the next layer.
        exports: takes spans and events.
        routes: paths that become attributes.
        quiet: paths that are polled all day.
    """

    def __init__(self, app: App, exports: Exports, *, routes: Collection[str], quiet: Collection[str]) -> None:
        self._app = app
        self._exports = exports
        self._routes = frozenset(routes)
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._quiet:
            await self._app(scope, receive, send)
            return
        trace = RequestTrace(self._exports, scope, scope["path"] if scope["path"] in self._routes else None)
        scope.setdefault("state", {}).update(trace=trace, trace_id=trace.trace_id)

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            trace.end(scope["state"])


class RequestTrace:
    """The span of one request. ``status`` is the HTTP status of the reply, 499 until there is one."""

    def __init__(self, exports: Exports, scope: Scope, route: str | None) -> None:
        self._exports = exports
        self._began, self._epoch = perf_counter(), time_ns()
        self.status = CLIENT_LEFT
        self._answered = 0.0
        self._reply: wire.ScoresReply | None = None
        self._seconds: Mapping[str, float] = {}
        self._caller = _W3C.extract({name: header(scope, name.encode()).decode("latin-1") for name in _PROPAGATED})
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        self._span = exports.tracer.start_span(
            f"{method} {route}" if route else method,
            self._caller,
            SpanKind.SERVER,
            {"http.request.method": method, "url.scheme": scope["scheme"], **_route_attributes(route)},
            start_time=self._epoch,
        )

    @property
    def trace_id(self) -> str:
        return format_trace_id(self._span.get_span_context().trace_id)

    def on_answer(self, reply: wire.ScoresReply, seconds: Mapping[str, float]) -> None:
        """Takes the reply with its scores, and the seconds of each stage in order."""
        self._answered, self._reply, self._seconds = perf_counter(), reply, seconds

    def end(self, state: Mapping[str, Any]) -> None:
        """Ends the span. ``state`` is the request's state, which the layers filled for log and metrics."""
        if not self._span.is_recording():
            return
        ended = perf_counter()
        _set_outcome(self._span, self.status, state)
        if "model" in state:
            self._span.set_attributes(_evaluation_attributes(state))
        if self._reply is not None:
            self._set_scores(self._reply, state["scored"], ended)
        self._span.end(self._at(ended))

    def _set_scores(self, reply: wire.ScoresReply, scored: Mapping[str, Any], ended: float) -> None:
        context = set_span_in_context(self._span, self._caller)
        self._add_stages(context)
        scores = 0
        if self._exports.events is not None:
            scores = emit(self._exports.events, reply, self._caller or context, self._at(self._answered))
        self._span.set_attributes(
            {
                "gen_ai.usage.input_tokens": scored["tokens"],
                "gen_ai.usage.cache_read.input_tokens": scored["tokens"] - scored["computed"],
                "gen_ai.latency.time_in_queue": self._seconds.get("queue", 0.0),
                "gen_ai.latency.time_in_model_forward": self._seconds.get("forward", 0.0),
                "gen_ai.latency.e2e": ended - self._began,
                "agentprm.items": scored["items"],
            }
        )
        if scores > MAX_EVENTS:
            self._span.set_attribute("agentprm.evaluations_left_out", scores - MAX_EVENTS)

    def _add_stages(self, context: Context) -> None:
        """Adds the stages as spans one after the other, the last ending with the answer.

        A request of several forwards also waits between them; these spans show all its waiting before the first.
        """
        at = self._answered - sum(self._seconds.values())
        for stage, seconds in self._seconds.items():
            if seconds:
                self._exports.tracer.start_span(stage, context, start_time=self._at(at)).end(self._at(at + seconds))
            at += seconds

    def _at(self, moment: float) -> int:
        """Returns nanoseconds since the epoch; a change of the system's clock during the request has no effect."""
        return self._epoch + round((moment - self._began) * 1e9)


def _route_attributes(route: str | None) -> dict[str, str]:
    return {"http.route": route, "url.path": route} if route else {}


def _evaluation_attributes(state: Mapping[str, Any]) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "evaluate",
        "gen_ai.provider.name": "agentprm",
        "gen_ai.request.model": state["requested_model"],
        "gen_ai.response.model": state["model"],
        "gen_ai.request.id": state["request_id"],
    }


def _set_outcome(span: Span, status: int, state: Mapping[str, Any]) -> None:
    """Sets the status. By the semantic conventions, only a fault of the service makes a server's span an error."""
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", "cancelled" if status == CLIENT_LEFT else state.get("error", str(status)))
    if status >= 500:
        span.set_status(StatusCode.ERROR)
