"""Every bad request gets the envelope, nothing crashes, and no agent's text comes back or is logged."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentprm import wire
from tests.service.echo_app import BrokenEngine, item, proposal, serving

MARKER = "XYZZY-the-agents-own-words"
JSON = {"content-type": "application/json"}


def refusal(reply: httpx.Response) -> tuple[int, str]:
    """Status and code of a reply that is an error envelope."""
    return reply.status_code, wire.ErrorReply.model_validate_json(reply.content).error.code


def score(*items: Any, **more: Any) -> tuple[str, Any]:
    return "/score_step", {"items": list(items), **more}


def rank(*items: Any, **more: Any) -> tuple[str, Any]:
    return "/rank_actions", {"items": list(items), **more}


def chat(*turns: Any) -> dict[str, Any]:
    return {"messages": list(turns)}


def call(arguments: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


USER = {"role": "user", "content": MARKER}
ASSISTANT = {"role": "assistant", "content": MARKER}
TOOL = {"type": "function", "function": {"name": MARKER}}
DEEP = {"name": "f", "arguments": json.loads('{"a":' * 300 + '"' + MARKER + '"' + "}" * 300)}
ENDLESS = {"name": "f", "arguments": {"said": MARKER, "a": float("inf")}}
BAD = {
    "no body at all": ("/score_step", None),
    "a body of another type": ("/score_step", [MARKER]),
    "no items": score(),
    "empty task": score(item("", MARKER)),
    "no steps": score({"task": MARKER, "steps": []}),
    "empty action": score({"task": MARKER, "steps": [{"action": ""}]}),
    "a number for an action": score({"task": MARKER, "steps": [{"action": 1}]}),
    "text for steps": score({"task": "t", "steps": MARKER}),
    "unknown field": score(item(MARKER, MARKER), sort=MARKER),
    "unknown field in an item": score(item(MARKER, outcome=MARKER)),
    "both forms": score({**item(MARKER), **chat(USER)}),
    "no candidates": rank(proposal(observation=MARKER)),
    "empty candidate": rank(proposal(MARKER, "")),
    "candidate of another type": rank(proposal(MARKER, [MARKER])),
    "candidate of another role": rank(proposal(USER)),
    "chat that ends in the wrong turn": score(chat(USER)),
    "chat without a task": score(chat({"role": "assistant", "content": MARKER})),
    "chat with an unread field": score(chat(USER, {"role": "assistant", "content": MARKER, "refusal": MARKER})),
    "unknown role": score(chat({"role": MARKER, "content": MARKER})),
    "lone surrogate": score(item("\ud800" + MARKER)),
    "lone surrogate as a field": score(item(MARKER, **{"\ud800": MARKER})),
    "lone surrogate in a tool call": score(chat(USER, call('{"a": "\\ud800"}'))),
    "deep arguments in an object": score(chat(USER, {**ASSISTANT, "tool_calls": [{"function": DEEP}]})),
    "a number too large in arguments": score(chat(USER, {**ASSISTANT, "tool_calls": [{"function": ENDLESS}]})),
    "lone surrogate in reasoning": score(chat(USER, {**ASSISTANT, "reasoning": "\ud800" + MARKER})),
    "an image": score(
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": MARKER}}]}, ASSISTANT)
    ),
    "a part of an unknown type": score(chat({"role": "user", "content": [{"type": MARKER}]}, ASSISTANT)),
    "a result of no call": score(chat(USER, {"role": "tool", "tool_call_id": MARKER, "content": "x"}, ASSISTANT)),
    "two texts of reasoning": score(chat(USER, {**ASSISTANT, "reasoning": MARKER, "thinking": "x"})),
    "an unknown wish about reasoning": score({**chat(USER, ASSISTANT), "reasoning": MARKER}),
    "tools beside steps": score(item(MARKER, tools=[TOOL])),
    "tools where the template has none": score({**chat(USER, ASSISTANT), "tools": [TOOL]}),
    "a tool without a name": score({**chat(USER, ASSISTANT), "tools": [{"function": {"description": MARKER}}]}),
    "lone surrogate in a tool": score({**chat(USER, ASSISTANT), "tools": [{"function": {"name": "\ud800" + MARKER}}]}),
    "deep tool": score({**chat(USER, ASSISTANT), "tools": [{"function": {**DEEP, "parameters": DEEP["arguments"]}}]}),
    "deep tool call": score(chat(USER, call("[" * 50_000 + "]" * 50_000))),
}


@pytest.mark.parametrize(("route", "body"), BAD.values(), ids=BAD)
def test_a_wrong_body_is_422_and_its_text_stays_here(route: str, body: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> httpx.Response:
        async with serving() as client:
            content = None if body is None else json.dumps(body)
            reply = await client.post(route, content=content, headers=JSON)
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200
            return reply

    with caplog.at_level(logging.DEBUG):
        reply = asyncio.run(scenario())
    assert refusal(reply) == (422, "invalid")
    assert MARKER not in reply.text
    assert MARKER not in caplog.text


RAW = {
    "no JSON": b'{"items": [' + MARKER.encode(),
    "broken UTF-8": b'{"items": ["\xff' + MARKER.encode() + b'"]}',
    "NaN": b'{"items": [NaN]}',
    "NaN for text": b'{"items": [{"task": NaN, "steps": [{"action": "a"}]}]}',
    "100,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 brackets inside": b'{"items": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long unknown field": b'{"' + b"x" * 100_000 + b'": 1}',
    "an integer of 5,000 digits": b'{"items": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("content", RAW.values(), ids=RAW)
def test_a_body_that_cannot_be_read_is_422(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> httpx.Response:
        async with serving() as client:
            return await client.post("/score_step", content=content, headers=JSON)

    with caplog.at_level(logging.DEBUG):
        reply = asyncio.run(scenario())
    assert refusal(reply) == (422, "invalid")
    assert MARKER not in reply.text + caplog.text
    assert len(reply.content) < 2000


def test_json_under_another_content_type_is_422() -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", content=json.dumps({"items": [item(MARKER)]}))
            assert refusal(reply) == (422, "invalid")
            assert MARKER not in reply.text

    asyncio.run(scenario())


def test_an_error_names_the_place() -> None:
    async def scenario() -> None:
        async with serving() as client:
            typed = await client.post("/score_step", json={"items": [item(), {"task": "t", "steps": [{"action": 1}]}]})
            assert typed.json()["error"]["details"]["errors"][0]["loc"] == ["body", "items", 1, "steps", 0, "action"]
            turned = await client.post("/score_step", json={"items": [item(), chat(USER)]})
            assert turned.json()["error"]["details"] == {"item": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "", "9" * 400])
def test_a_bad_deadline_is_422(value: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", json={"items": [item()]}, headers={"x-deadline-ms": value})
            assert refusal(reply) == (422, "invalid")

    asyncio.run(scenario())


@pytest.mark.parametrize("value", ["soon", "", "INTERACTIVE", "0", "bulk,interactive"])
def test_a_bad_priority_is_422(value: str) -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", json={"items": [item()]}, headers={"x-priority": value})
            assert refusal(reply) == (422, "invalid")

    asyncio.run(scenario())


def test_a_body_over_the_limit_is_413_announced_or_not() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    async def scenario() -> None:
        async with serving() as client:
            for content in (b" " * 10_000_000, chunks()):
                reply = await client.post("/score_step", content=content, headers=JSON)
                assert refusal(reply) == (413, "too_long")
                assert reply.json()["error"]["details"] == {"limit": 4 * 1024 * 1024}
                assert reply.headers["x-request-id"]

    asyncio.run(scenario())


def test_an_absurd_content_length_is_413() -> None:
    async def scenario() -> None:
        async with serving() as client:
            headers = {**JSON, "content-length": "9" * 5000}
            assert refusal(await client.post("/score_step", content=b"", headers=headers)) == (413, "too_long")

    asyncio.run(scenario())


def test_a_body_of_exactly_the_limit_is_read() -> None:
    async def scenario() -> None:
        content = json.dumps({"items": [item()]}).encode()
        for limit, status in ((len(content), 200), (len(content) - 1, 413)):
            async with serving(max_body_bytes=limit) as client:
                assert (await client.post("/score_step", content=content, headers=JSON)).status_code == status

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (score(*[item()] * 5), {"items": 5, "limit": 4}),
        (rank(proposal("a"), proposal(*"abcd")), {"item": 1, "candidates": 4, "limit": 3}),
        (score(item(), item("t" * 2000)), {"item": 1, "tokens": 2016, "limit": 2000}),
    ],
)
def test_a_request_over_a_published_limit_is_413_and_tells_which(
    body: tuple[str, Any], details: dict[str, Any]
) -> None:
    async def scenario() -> None:
        async with serving(max_items=4, max_candidates=3) as client:
            reply = await client.post(body[0], json=body[1])
            assert refusal(reply) == (413, "too_long")
            assert reply.json()["error"]["details"] == details

    asyncio.run(scenario())


def test_a_request_that_could_never_wait_is_413_though_nothing_else_does() -> None:
    async def scenario() -> None:
        async with serving(max_queue_tokens=100) as client:
            assert (await client.post("/score_step", json={"items": [item("t")]})).status_code == 200
            reply = await client.post("/score_step", json={"items": [item("t" * 200)]})
            assert refusal(reply) == (413, "too_long")
            assert reply.json()["error"]["details"] == {"tokens": 216, "limit": 100}

    asyncio.run(scenario())


def test_an_unknown_model_is_404_and_told_what_is_loaded() -> None:
    async def scenario() -> None:
        async with serving() as client:
            reply = await client.post("/score_step", json={"model": MARKER, "items": [item()]})
            assert refusal(reply) == (404, "model_not_found")
            assert reply.json()["error"]["details"]["loaded"] == ["demo", "echo", "echo@1"]
            assert MARKER not in reply.text

    asyncio.run(scenario())


def test_unknown_routes_and_methods_get_the_envelope() -> None:
    async def scenario() -> None:
        async with serving() as client:
            assert refusal(await client.get("/score")) == (404, "not_found")
            assert refusal(await client.post("/score_step/", json={})) == (404, "not_found")
            wrong = await client.get("/score_step")
            assert refusal(wrong) == (405, "method_not_allowed")
            assert wrong.headers["allow"] == "POST"
            assert refusal(await client.delete("/health")) == (405, "method_not_allowed")

    asyncio.run(scenario())


def test_an_unexpected_exception_is_500_with_an_id_and_logged_without_its_words(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError(MARKER)

    async def scenario() -> None:
        monkeypatch.setattr("service.http.items.to_history", fail)
        async with serving() as client:
            body = {"items": [item(MARKER)]}
            reply = await client.post("/score_step", json=body, headers={"x-request-id": "find-me"})
            assert refusal(reply) == (500, "internal")
            assert reply.json()["error"]["details"] == {"id": "find-me"}
            assert MARKER not in reply.text

    asyncio.run(scenario())
    assert "find-me: LookupError" in caplog.text
    assert "in fail" in caplog.text
    assert MARKER not in caplog.text


def test_no_text_is_logged_when_the_engine_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            engine.failure = RuntimeError("CUDA error")
            await client.post("/score_step", json={"items": [item(MARKER, MARKER)]})

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert "CUDA error" in caplog.text
    assert MARKER not in caplog.text
