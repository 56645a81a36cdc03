"""Spans and events as a collector receives them, and as docs/tracing.md describes them."""

import asyncio
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.http.middleware.asgi import Message, Receive, Scope, Send
from service.tracing import open_tracing
from service.tracing.events import MAX_EVENTS
from tests.service.echo_app import GatedEngine, item, proposal, serving
from tests.service.metrics.asking import NaNEngine, ask_all_kinds
from tests.service.tracing.collector import Collector, attributes

ROOT = Path(__file__).parents[3]
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
STAGES = ["tokenize", "cache", "queue", "forward"]


async def ask(client: httpx.AsyncClient, route: str, *items: Any, **headers: str) -> httpx.Response:
    reply = await client.post(route, json={"items": items}, headers={**SAMPLED, **headers})
    assert reply.status_code == 200
    return reply


def asked(route: str, *items: Any, otel: str = "events", **headers: str) -> httpx.Response:
    """Returns the reply of a service, which is then drained so that all its spans are sent."""

    async def scenario() -> httpx.Response:
        async with serving(otel=otel) as client:
            return await ask(client, route, *items, **headers)

    return asyncio.run(scenario())


def test_a_requests_span_is_a_child_of_the_callers_and_its_stages_are_its_own(collector: Collector) -> None:
    asked("/score_step", item())
    request = collector.span("POST /score_step")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    stages = [span for span in collector.spans if span is not request]
    assert [span.name for span in stages] == STAGES
    assert {(span.trace_id.hex(), span.parent_span_id) for span in stages} == {(TRACE, request.span_id)}
    assert {span.trace_state for span in collector.spans} == {"vendor=1"}


def test_the_stages_follow_each_other_within_the_request_and_last_what_server_timing_says(
    collector: Collector,
) -> None:
    reply = asked("/rank_actions", proposal("a", "b"))
    request, *stages = [collector.span(name) for name in ("POST /rank_actions", *STAGES)]
    assert request.start_time_unix_nano <= stages[0].start_time_unix_nano
    for stage, following in pairwise(stages):
        assert stage.end_time_unix_nano == following.start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= request.end_time_unix_nano
    header = {stage: float(ms) for stage, ms in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"])}
    took = {span.name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 for span in stages}
    assert took == pytest.approx(header, abs=0.0011)  # a microsecond, as the header rounds
    waited = attributes(request.attributes)["gen_ai.latency.time_in_queue"]
    assert waited == pytest.approx(header["queue"] / 1000, abs=1e-6)


def test_an_event_for_each_score_carries_its_promise_to_the_callers_span(collector: Collector) -> None:
    async def scenario() -> list[tuple[float, float | None, int, int | None, int | None]]:
        async with serving(otel="events") as client:
            step, trajectory, ranked = [
                (await ask(client, route, *items)).json()["results"]
                for route, items in (
                    ("/score_step", [item("Craft.", "look", "go"), item("Craft.", "look")]),
                    ("/score_trajectory", [item("Craft.", "look", "go")]),
                    ("/rank_actions", [proposal("a", "b", "a")]),
                )
            ]
        return [
            *((score["promise"], score["progress"], index, None, None) for index, score in enumerate(step)),
            *((score["promise"], score["progress"], 0, at, None) for at, score in enumerate(trajectory[0]["steps"])),
            *((action["promise"], action["progress"], 0, None, action["index"]) for action in ranked[0]["ranking"]),
        ]

    answered = asyncio.run(scenario())
    events = [attributes(event.attributes) for event in collector.events]
    names = ("gen_ai.evaluation.score.value", *(f"agentprm.{it}" for it in ("progress", "item", "step", "candidate")))
    assert [tuple(event.get(name) for name in names) for event in events] == answered
    assert len(events) == 7
    assert {event["gen_ai.evaluation.name"] for event in events} == {"promise"}
    assert {event.event_name for event in collector.events} == {"gen_ai.evaluation.result"}
    assert {(event.trace_id.hex(), event.span_id.hex()) for event in collector.events} == {(TRACE, CALLER)}


def test_without_a_caller_a_request_begins_a_trace_and_its_events_are_its_own(collector: Collector) -> None:
    asked("/score_step", item(), traceparent="", tracestate="")
    request, (event,) = collector.span("POST /score_step"), collector.events
    assert not request.parent_span_id
    assert (event.trace_id, event.span_id) == (request.trace_id, request.span_id)


def test_events_of_one_request_are_bounded_and_what_was_left_out_is_told(collector: Collector) -> None:
    many = [item("Craft.", *["look"] * (MAX_EVENTS // 2)) for _ in range(3)]
    asked("/score_trajectory", *many)
    assert len(collector.events) == MAX_EVENTS
    request = attributes(collector.span("POST /score_trajectory").attributes)
    assert request["agentprm.evaluations_left_out"] == MAX_EVENTS // 2


def test_traces_alone_send_no_events(collector: Collector) -> None:
    asked("/rank_actions", proposal(*map(str, range(30))), otel="traces")
    assert len(collector.spans) == 5
    assert not collector.events
    assert "agentprm.evaluations_left_out" not in attributes(collector.span("POST /rank_actions").attributes)


def test_tokens_and_models_are_told_under_the_names_that_dashboards_know(collector: Collector) -> None:
    async def scenario() -> None:
        async with serving(otel="traces", score_cache_items=100) as client:
            for _ in range(2):
                body = {"items": [item()], "model": "demo"}
                assert (await client.post("/score_step", json=body)).status_code == 200

    asyncio.run(scenario())
    first, again = [attributes(span.attributes) for span in collector.spans if span.name == "POST /score_step"]
    assert (first["gen_ai.request.model"], first["gen_ai.response.model"]) == ("demo", "echo@1")
    assert first["gen_ai.usage.input_tokens"] == again["gen_ai.usage.input_tokens"] > 0
    assert first["gen_ai.usage.cache_read.input_tokens"] == 0
    assert again["gen_ai.usage.cache_read.input_tokens"] == again["gen_ai.usage.input_tokens"]
    assert [span.name for span in collector.spans].count("forward") == 1, "none where all is known"


def test_every_way_that_a_request_ends_is_told_and_only_faults_of_the_service_are_errors(collector: Collector) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, otel="traces") as client:
            await ask_all_kinds(client, engine)
        async with serving(NaNEngine(), otel="traces") as client:
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 500

    asyncio.run(scenario())
    requests = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    ended = [
        (span.name, attributes(span.attributes), span.status.code == Status.STATUS_CODE_ERROR) for span in requests
    ]
    assert [(name, is_error, has.get("error.type")) for name, has, is_error in ended] == [
        ("POST /score_step", False, None),
        ("POST /score_trajectory", False, None),
        ("POST /rank_actions", False, None),
        ("POST /score_step", False, "invalid"),
        ("POST /score_step", False, "model_not_found"),
        ("POST /score_step", False, "too_long"),
        ("POST", False, "not_found"),
        ("POST /models", False, "method_not_allowed"),
        ("POST /score_step", False, "cancelled"),
        ("POST /score_step", True, "deadline_exceeded"),
        ("POST /score_step", True, "internal"),
    ]
    statuses = [has["http.response.status_code"] for _, has, _ in ended]
    assert statuses == [200, 200, 200, 422, 404, 413, 404, 405, 499, 504, 500]


def test_nothing_that_a_caller_wrote_is_sent(collector: Collector) -> None:
    async def scenario() -> None:
        async with serving(otel="events") as client:
            step = {"observation": "SECRET", "action": "SECRET"}
            good = {"id": "SECRET", "task": "SECRET", "steps": [step]}
            asking = {**good, "observation": "SECRET", "candidates": ["SECRET"]}
            for route, body in (
                ("/score_step?SECRET", {"items": [good]}),
                ("/rank_actions", {"items": [asking]}),
                ("/score_step", {"items": [good], "model": "SECRET"}),
                ("/score_step", {"items": [{**good, "SECRET": 1}]}),
                ("/score_step/SECRET", {}),
            ):
                await client.post(route, json=body, headers={"authorization": "Bearer SECRET"})
            await client.request("SECRET", "/models")

    asyncio.run(scenario())
    assert len([span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]) == 6
    assert not [body for body in collector.bodies if b"SECRET" in body]


def test_probes_leave_no_spans(collector: Collector) -> None:
    async def scenario() -> None:
        async with serving(otel="traces") as client:
            for route in ("/health", "/ready", "/metrics"):
                assert (await client.get(route, headers=SAMPLED)).status_code == 200

    asyncio.run(scenario())
    assert not collector.bodies


def test_what_the_caller_does_not_sample_is_not_sent_but_the_log_names_its_trace(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "service.http.middleware.request_log"):
        asked("/score_step", item(), traceparent=f"00-{TRACE}-{CALLER}-00")
    assert not collector.bodies
    (line,) = [record.__dict__["fields"] for record in caplog.records if record.message == "request"]
    assert line["trace_id"] == TRACE


@given(traceparent=st.one_of(st.binary(max_size=80), st.from_regex(rb"[0-9a-f]{2}(-[0-9a-fg]+){1,4}", fullmatch=True)))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_traceparent_that_is_none_costs_nobody_an_answer(collector: Collector, traceparent: bytes) -> None:
    tracing = open_tracing("traces")
    assert tracing is not None
    states = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        states.append(scope["state"])

    async def nobody(*_: Message) -> NoReturn:
        raise AssertionError("the app neither asks nor answers")

    async def scenario() -> None:
        traced = tracing.middleware(app, routes=(), quiet=())
        headers = [(b"traceparent", traceparent), (b"tracestate", traceparent)]
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": headers}
        await traced(scope, nobody, nobody)
        await tracing.close()

    asyncio.run(scenario())
    assert re.fullmatch("[0-9a-f]{32}", states[0]["trace_id"])


def test_every_attribute_has_its_row_in_the_docs_and_every_row_its_attribute(collector: Collector) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, otel="events") as client:
            await ask_all_kinds(client, engine)
            await ask(client, "/rank_actions", *[proposal(*map(str, range(64)))] * 2)

    asyncio.run(scenario())
    page = (ROOT / "docs" / "tracing.md").read_text(encoding="utf-8")
    for section, sent in (("spans", collector.spans), ("events", collector.events)):
        table = page.partition(f"## Attributes of {section}")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
        assert sorted(rows) == sorted({name for event in sent for name in attributes(event.attributes)})
