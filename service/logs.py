"""Log lines, one for each event: as text for people or as JSON for collectors.

An event is a message and, in ``extra={"fields": {...}}``, its fields. Neither ever holds text of an agent.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal

Format = Literal["text", "json"]

_as_json: Final = json.JSONEncoder(ensure_ascii=False, default=str).encode
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging(level: str, log_format: Format) -> None:
    """Sends every log record of this process to stderr, as text or JSON, from ``level`` ("info", say) on."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line has them, each costs time
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for client in ("httpx2", "httpcore2"):  # at INFO they log the address of every call to a judge or a policy
        logging.getLogger(client).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """Formats a record as its message, then ``name=value`` for each field."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        pairs = (f" {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + "".join(pairs)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time (RFC 3339), level, logger, message, the fields, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _as_json(line)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields
