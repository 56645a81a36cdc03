"""What the log says: one line an event, for a person or for a collector of JSON.

An event is a message and, in ``extra={"fields": {...}}``, what is known of it. No text of an agent is ever in either.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final, Literal

Format = Literal["text", "json"]

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging(level: str, form: Format) -> None:
    """Sends every record of this process to stderr in one form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx2", "httpcore2"):  # a line for each call to a judge or a policy, with its address
        logging.getLogger(chatty).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """The message, then ``name=value`` for each field."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        pairs = (f" {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + "".join(pairs)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message, the fields, and a traceback if there is one."""

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
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields
