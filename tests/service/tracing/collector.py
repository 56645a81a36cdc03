"""A collector of traces: an OTLP/HTTP server that keeps what it was sent, decoded."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service.echo_app import PATIENCE


class Collector:
    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        self.events: list[LogRecord] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        self._came = Condition()

    def take(self, path: str, body: bytes) -> int:
        with self._came:
            self.bodies.append(body)
            if path == "/v1/traces":
                for spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(attributes(spans.resource.attributes))
                    self.spans += [span for scope in spans.scope_spans for span in scope.spans]
            elif path == "/v1/logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self.resources.append(attributes(logs.resource.attributes))
                    self.events += [record for scope in logs.scope_logs for record in scope.log_records]
            else:
                return 404
            self._came.notify_all()
            return self.status

    def wait_for(self, bodies: int) -> None:
        """Waits until it has received at least this number."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.bodies) >= bodies, PATIENCE)

    def span(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a request is still answered"


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
