"""Any body gets a documented reply; none of its text is in the reply or the log, and the service goes on."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from agentprm import wire
from agentprm.errors import BY_CODE
from tests import odd_json
from tests.service.echo_app import item, proposal, serving

MARKER = "XYZZY-the-agents-own-words"
JSON = {b"content-type": b"application/json"}
BRANCHES = ("function-", "constrained-str", "<text>", "<parts>", "<message>")  # what pydantic calls them
LONGEST_ERROR = 40_000  # bytes: twenty complaints, each with the beginnings of a few names

fuzzed = settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

Body = dict[str, Any]


class Sent:
    """A request. It is no dataclass, because hypothesis would print the whole body, which may be long."""

    def __init__(self, path: str, content: bytes, headers: Mapping[bytes, bytes] = JSON) -> None:
        self.path = path
        self.content = content
        self.headers = headers

    def __repr__(self) -> str:
        return f"{self.path} {self.content[:1000]!r} {str(self.headers)[:200]}"


OBJECT = {"index": 0, "id": "1", "function": {"name": "f", "arguments": {"said": [MARKER, 1.5, None]}}}
THINKING = {"type": "thinking", "thinking": MARKER, "signature": "x"}
THINKS = {"role": "assistant", "content": [THINKING, {"type": "text", "text": MARKER}], "tool_calls": [OBJECT]}
CALL = {"type": "function", "function": {"name": "f", "arguments": json.dumps({"said": MARKER})}}
TURNS = [
    {"role": "system", "content": [{"type": "text", "text": MARKER}]},
    {"role": "user", "content": MARKER, "name": None},
    {"role": "assistant", "content": MARKER, "tool_calls": [CALL], "reasoning_content": MARKER},
    {"role": "tool", "content": MARKER, "tool_call_id": "1"},
]
REQUESTS: list[tuple[str, Body]] = [
    ("/score_step", {"model": "echo", "items": [item(MARKER, MARKER, id="a"), item("Craft.", MARKER, MARKER)]}),
    ("/score_step", {"items": [{"messages": TURNS[:3]}]}),
    ("/score_step", {"items": [{"messages": [*TURNS[:2], THINKS], "reasoning": "drop", "tools": []}]}),
    ("/score_trajectory", {"items": [item("Craft.", MARKER), {"messages": TURNS[:3]}]}),
    ("/rank_actions", {"items": [proposal(MARKER, TURNS[2]), {"messages": TURNS, "candidates": [MARKER]}]}),
]
Exchange = Callable[[Sent], tuple[httpx.Response, Any]]
Check = Callable[[Sent], httpx.Response]


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """Sends a request, then a valid one, to one service for all these tests. Returns the reply and the scores."""
    good = json.dumps({"items": [item("Craft.", "look", "craft")]})
    with asyncio.Runner() as runner:
        service = AsyncExitStack()
        client = runner.run(service.enter_async_context(serving()))

        async def both(sent: Sent) -> tuple[httpx.Response, Any]:
            reply = await client.post(sent.path, content=sent.content, headers=sent.headers)
            return reply, (await client.post("/score_step", content=good, headers=JSON)).json()

        yield lambda sent: runner.run(both(sent))
        runner.run(service.aclose())


@pytest.fixture(scope="module")
def good_scores(exchange: Exchange) -> Any:
    path, body = REQUESTS[0]
    return exchange(Sent(path, json.dumps(body).encode()))[1]


@pytest.fixture
def check(exchange: Exchange, good_scores: Any, caplog: pytest.LogCaptureFixture) -> Check:
    """Sends a request, checks what holds for every reply, and returns the reply."""
    caplog.set_level(logging.DEBUG)

    def check(sent: Sent) -> httpx.Response:
        caplog.clear()
        reply, scores_then = exchange(sent)
        if reply.status_code != 200:
            error = wire.ErrorReply.model_validate_json(reply.content).error
            assert BY_CODE[error.code].status == reply.status_code < 500
            assert len(reply.content) < LONGEST_ERROR
            assert not [name for name in BRANCHES if name in reply.text]
        logged = "\n".join(str(vars(record)) for record in caplog.records)
        for secret in (MARKER, "Traceback"):
            assert secret not in reply.text
            assert secret not in logged
        assert scores_then == good_scores
        return reply

    return check


@fuzzed
@given(path=st.sampled_from([path for path, _ in REQUESTS]), before=st.binary(), after=st.binary())
def test_random_bytes_are_422(check: Check, path: str, before: bytes, after: bytes) -> None:
    assert check(Sent(path, before + MARKER.encode() + after)).status_code == 422


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_body_is_scored_whole_and_422_wherever_it_is_cut(check: Check, path: str, body: Body) -> None:
    content = json.dumps(body).encode()
    assert check(Sent(path, content)).status_code == 200
    for end in range(len(content)):
        assert check(Sent(path, content[:end])).status_code == 422


PIECES = [b"null", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\\u0000", b"\xff", b"\xef\xbb\xbf"]


@st.composite
def mutated(draw: DrawFn) -> Sent:
    """A good body with some stretches of its bytes replaced, removed or repeated."""
    path, body = draw(st.sampled_from(REQUESTS))
    content = bytearray(json.dumps(body).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        new = st.one_of(st.sampled_from(PIECES), st.binary(max_size=4), st.just(bytes(content[start:end]) * 2))
        content[start:end] = draw(new)
    return Sent(path, bytes(content))


@fuzzed
@given(sent=mutated())
def test_a_body_with_changed_bytes_is_scored_or_refused(check: Check, sent: Sent) -> None:
    check(sent)


EVERYWHERE = [*odd_json.VALUES, *(json.dumps(f'{{"a": {value}}}') for value in odd_json.VALUES)]  # and as arguments
FIELDS = [*odd_json.TEXTS, '"items"', '"task"', '"steps"', '"messages"', '"action"', '"role"', '"__class__"']


@pytest.mark.parametrize("value", EVERYWHERE, ids=lambda value: value[:20])
def test_an_odd_value_anywhere_is_scored_or_refused(check: Check, value: str) -> None:
    for path, body in REQUESTS:
        for content in odd_json.in_each_place(body, value):
            check(Sent(path, content.encode()))


@pytest.mark.parametrize("value", ["null", "1", json.dumps(MARKER), json.dumps({"said": MARKER})])
@pytest.mark.parametrize("name", FIELDS, ids=lambda name: name[:20])
def test_a_second_or_unknown_field_anywhere_is_scored_or_refused(check: Check, name: str, value: str) -> None:
    for path, body in REQUESTS:
        for content in odd_json.in_each_object(body, name, value):
            check(Sent(path, content.encode()))


@st.composite
def nesting(draw: DrawFn) -> Sent:
    """A good body with a deep value somewhere, perhaps as a text, as the arguments of a tool call are."""
    path, body = draw(st.sampled_from(REQUESTS))
    value = draw(st.one_of(odd_json.nests, odd_json.nests.map(json.dumps)))
    fill = st.sampled_from([*odd_json.in_each_place(body, "?"), *odd_json.in_each_object(body, '"more"', "?")])
    return Sent(path, draw(fill).replace("?", value).encode())


@fuzzed
@given(sent=nesting())
def test_a_value_of_any_depth_anywhere_is_scored_or_refused(check: Check, sent: Sent) -> None:
    check(sent)


@fuzzed
@given(depth=st.integers(1, 2000))
def test_arguments_of_any_depth_are_scored_or_refused(check: Check, depth: int) -> None:
    arguments = "[" * depth + "]" * depth
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    check(Sent("/score_step", json.dumps({"items": [{"messages": [TURNS[1], turn]}]}).encode()))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7", "latin-1", "cp037"])
@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_body_in_another_encoding_is_scored_or_refused(check: Check, path: str, body: Body, encoding: str) -> None:
    check(Sent(path, json.dumps({**body, "model": "déjà"}, ensure_ascii=False).encode(encoding)))


FORMS = [b"application/x-www-form-urlencoded", b"multipart/form-data", b"multipart/form-data; boundary=x"]
TYPES = [b"", b";", b"/", b"text/plain", b"application/json" * 1000, *FORMS]


@fuzzed
@given(kind=st.one_of(st.sampled_from(TYPES), st.binary(max_size=60).filter(lambda kind: b"json" not in kind.lower())))
def test_a_body_of_another_content_type_is_422(check: Check, kind: bytes) -> None:
    path, body = REQUESTS[0]
    assert check(Sent(path, json.dumps(body).encode(), {b"content-type": kind})).status_code == 422


OURS = [b"x-deadline-ms", b"x-priority", b"x-request-id"]
HEADERS = [*OURS, b"authorization", b"accept", b"cookie", b"content-encoding", b"expect"]
LONG = [b"9" * 5000, b"x" * 1_000_000, b"\xff" * 1000, b"-1"]


@fuzzed
@given(name=st.sampled_from(HEADERS), value=st.one_of(st.sampled_from(LONG), st.binary(max_size=60)))
def test_a_header_of_any_value_is_read_or_refused(check: Check, name: bytes, value: bytes) -> None:
    path, body = REQUESTS[0]
    check(Sent(path, json.dumps(body).encode(), {**JSON, name: value}))
