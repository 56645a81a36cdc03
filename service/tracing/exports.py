"""Exports spans and events: two threads of the OpenTelemetry SDK batch them and post them to a collector.

The providers belong to this application; none is registered globally. The SDK reads the ``OTEL_`` variables itself. Its
queues are bounded and drop what exceeds them, so a collector that is slow or down costs callers nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum
from threading import Thread
from typing import Final, TypeVar
from uuid import uuid4

# OpenTelemetry has no public name for logs: all of it is in modules with an underscore, which any minor version may
# change. So the requirement has an upper bound.
from opentelemetry._logs import Logger
from opentelemetry.exporter.otlp.proto.http import _log_exporter, trace_exporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from service.versions import version_of

logger = logging.getLogger(__name__)

SCOPE: Final = "agentprm"
FLUSH_SECONDS: Final = 5
_BATCH_PROCESSORS: Final = "opentelemetry.sdk._shared_internal"
"""Logger of the SDK's batch processors, which complain when a queue is full."""
R = TypeVar("R", bound=Enum)


class Exports:
    """``tracer`` makes spans; ``events`` takes events of scores, None if they are off."""

    def __init__(self, *, events: bool) -> None:
        resource, version = _resource(), version_of(SCOPE)
        spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(_SpanExporter()))
        self.providers: list[TracerProvider | LoggerProvider] = [spans]
        self.tracer = spans.get_tracer(SCOPE, version)
        self.events: Logger | None = None
        if events:
            records = LoggerProvider(resource=resource, shutdown_on_exit=False)
            records.add_log_record_processor(BatchLogRecordProcessor(_EventExporter()))
            self.providers.append(records)
            self.events = records.get_logger(SCOPE, version)

    async def close(self) -> None:
        """Sends the last spans and events; gives up after ``FLUSH_SECONDS``."""
        # A daemon thread: one that hangs ends with the process.
        closing = Thread(target=self._shut_down, name="traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_SECONDS)
        if closing.is_alive():
            logger.warning("the last traces were not delivered within %d s", FLUSH_SECONDS)

    def _shut_down(self) -> None:
        for provider in self.providers:
            provider.shutdown()


def _resource() -> Resource:
    """Returns the sender's attributes; ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` override the defaults."""
    configured = OTELResourceDetector().detect().attributes
    defaults = {
        "service.name": SCOPE,
        "service.version": version_of(SCOPE),
        "service.instance.id": str(uuid4()),
    }
    return Resource.create({**defaults, **configured})


class _Outage(logging.Filter):
    """Lets loggers complain once, and not again until an export succeeds.

    Args:
        what: name of what is exported, for the log.
        loggers: names of the loggers that complain.
    """

    def __init__(self, what: str, *loggers: str) -> None:
        super().__init__()
        self._what = what
        self._complained = False
        for name in loggers:
            logging.getLogger(name).addFilter(self)

    def filter(self, _: logging.LogRecord) -> bool:
        complained, self._complained = self._complained, True
        return not complained

    def passed(self, result: R) -> R:
        """Returns ``result`` of an export, and ends the outage if it is a success."""
        if self._complained and result.name == "SUCCESS":
            self._complained = False
            logger.info("%s are delivered again", self._what)
        return result


_spans_outage: Final = _Outage("spans", trace_exporter.__name__, _BATCH_PROCESSORS)
_events_outage: Final = _Outage("events", _log_exporter.__name__)


class _SpanExporter(trace_exporter.OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return _spans_outage.passed(super().export(spans))


class _EventExporter(_log_exporter.OTLPLogExporter):
    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        return _events_outage.passed(super().export(batch))
