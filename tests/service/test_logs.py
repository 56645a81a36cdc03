"""One line a request, with what an operator asks for and nothing that an agent wrote."""

import asyncio
import json
import logging
from typing import Any

import pytest

from service.logs import JsonLines, TextLines
from tests.service.echo_app import item, proposal, serving

MARKER = "what-the-agent-saw"


def requested(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of every request line."""
    return [record.__dict__["fields"] for record in caplog.records if record.message == "request"]


def ask(
    caplog: pytest.LogCaptureFixture, path: str, body: Any, level: int = logging.INFO, request_id: str = "x"
) -> None:
    async def scenario() -> None:
        async with serving(score_cache_items=100) as client:
            headers = {"x-request-id": request_id}
            if body is None:
                await client.get(path, headers=headers)
            else:
                await client.post(path, json=body, headers=headers)

    with caplog.at_level(level):
        asyncio.run(scenario())


def test_a_request_is_one_line_with_its_model_tokens_and_stages(caplog: pytest.LogCaptureFixture) -> None:
    ask(caplog, "/rank_actions", {"items": [proposal("go", "go", "wait"), proposal("go")]}, request_id="mine")
    (line,) = requested(caplog)
    assert (line["id"], line["route"], line["status"]) == ("mine", "/rank_actions", 200)
    assert (line["model"], line["items"]) == ("echo@1", 2)
    assert line["tokens"] == line["computed"] + line["prefix_cache"] + line["score_cache"] > 0
    assert line["score_cache"] > 0, "the second item asks for what the first computes"
    stages = [line[f"{stage}_ms"] for stage in ("tokenize", "cache", "queue", "forward")]
    assert all(stage >= 0 for stage in stages)
    assert sum(stages) <= line["duration_ms"]


def test_a_refused_request_is_one_line_without_scores(caplog: pytest.LogCaptureFixture) -> None:
    ask(caplog, "/score_step", {"items": []})
    (line,) = requested(caplog)
    assert line.keys() == {"id", "route", "status", "duration_ms"}
    assert line["status"] == 422


def test_a_request_that_is_refused_by_a_model_names_it(caplog: pytest.LogCaptureFixture) -> None:
    ask(caplog, "/score_step", {"items": [item("t" * 3000)]})
    (line,) = requested(caplog)
    assert (line["status"], line["model"]) == (413, "echo@1")


def test_no_text_of_a_caller_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ask(caplog, "/score_step", {"items": [item(MARKER, MARKER, id=MARKER)]}, logging.DEBUG)
    ask(caplog, f"/{MARKER}", None, logging.DEBUG)
    lines = requested(caplog)
    assert [line["route"] for line in lines] == ["/score_step", "other"]
    assert MARKER not in json.dumps(lines)
    assert MARKER not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("service"))


def test_probes_are_logged_only_for_who_debugs(caplog: pytest.LogCaptureFixture) -> None:
    ask(caplog, "/health", None)
    assert requested(caplog) == []
    ask(caplog, "/health", None, logging.DEBUG)
    assert [line["route"] for line in requested(caplog)] == ["/health"]


def record(message: str = "hello %s", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.WARNING, "file", 1, message, ("you",), None)
    made.__dict__.update(extra)
    return made


def test_a_json_line_is_one_object_whatever_is_in_it() -> None:
    line = JsonLines().format(record("a\nb %s", fields={"status": 200, "route": "/ö"}))
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed.pop("time").endswith("+00:00")
    assert parsed == {
        "level": "warning", "logger": "service.x", "message": "a\nb you", "status": 200, "route": "/ö",
    }  # fmt: skip


def test_a_json_line_holds_a_traceback() -> None:
    error = ValueError("wrong")
    line = JsonLines().format(record(exc_info=(ValueError, error, None)))
    assert json.loads(line)["traceback"].endswith("ValueError: wrong")


def test_a_text_line_ends_in_its_fields() -> None:
    lines = TextLines("%(levelname)s %(message)s")
    assert lines.format(record(fields={"status": 200, "route": "/x"})) == "WARNING hello you status=200 route=/x"
    assert lines.format(record()) == "WARNING hello you"
