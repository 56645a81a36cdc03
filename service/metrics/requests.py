"""Requests: their number, their duration, and why some got no score."""

from collections.abc import Callable, Sequence
from typing import Final

from agentprm.errors import DeadlineExceeded, NotReady, Overloaded, RateLimited, RequestError, TooLong
from service.metrics.buckets import SECONDS
from service.metrics.families import Families

CODES: Final = (200, 401, 403, 404, 405, 408, 413, 415, 422, 429, 499, 500, 502, 503, 504)
CLIENT_LEFT: Final = 499
REASONS: Final = (TooLong.code, Overloaded.code, RateLimited.code, NotReady.code, DeadlineExceeded.code)
DEADLINE_STAGES: Final = ("sample", "admission", "tokenize", "cache", "queue")
OTHER_ROUTE: Final = "other"
NO_MODEL: Final = ""


class RequestMetrics:
    """Counts requests by route.

    Args:
        families: makes the metrics.
        routes: every route; other paths count as ``other``.
        scores: the routes that a model answers.
    """

    def __init__(self, families: Families, routes: Sequence[str], scores: Sequence[str]) -> None:
        self._routes = frozenset(routes)
        self._scores = scores
        self._models = families.models
        self._requests = families.counter("agentprm_requests", "Requests answered.", ["route", "model", "code"])
        self._duration = families.histogram(
            "agentprm_request_duration_seconds",
            "From the first byte of a request to the last of its reply.",
            ["route"],
            buckets=SECONDS,
        )
        self._rejected = families.counter("agentprm_rejected", "Well-formed requests that were refused.", ["reason"])
        self._late = families.counter("agentprm_deadline_exceeded", "Requests whose deadline passed.", ["stage"])
        self._cancelled = families.counter(
            "agentprm_cancelled", "Requests whose client left before the reply.", ["route"]
        )
        self._running = families.gauge("agentprm_requests_running", "Requests for scores in flight.")
        self._limit = families.gauge("agentprm_requests_limit", "Requests that may be in flight at once.")
        self._create_label_sets([*routes, OTHER_ROUTE])

    def _create_label_sets(self, routes: Sequence[str]) -> None:
        for route in routes:
            self._duration.labels(route)
            self._cancelled.labels(route)
            for code in CODES:
                self._requests.labels(route, NO_MODEL, code)
        for reason in REASONS:
            self._rejected.labels(reason)
        for stage in DEADLINE_STAGES:
            self._late.labels(stage)

    def add_model(self, model: str) -> None:
        for route in self._scores:
            for code in CODES:
                self._requests.labels(route, model, code)

    def on_request(self, path: str, code: int, seconds: float, model: str) -> None:
        """Counts a request. ``model`` is empty if none was reached; a model unloaded since then counts as none."""
        route = path if path in self._routes else OTHER_ROUTE
        self._requests.labels(route, model if model in self._models else NO_MODEL, code).inc()
        self._duration.labels(route).observe(seconds)
        if code == CLIENT_LEFT:
            self._cancelled.labels(route).inc()

    def on_error(self, error: RequestError) -> None:
        if error.code in REASONS:
            self._rejected.labels(error.code).inc()
        if isinstance(error, DeadlineExceeded):
            self._late.labels(error.details["stage"]).inc()

    def watch_running(self, running: Callable[[], int]) -> None:
        self._running.set_function(running)

    def set_limit(self, requests: int) -> None:
        self._limit.set(requests)
