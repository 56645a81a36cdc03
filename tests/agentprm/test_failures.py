"""Errors that the clients raise, and what they refuse to send."""

from typing import Any

import httpx
import pytest

from agentprm import AsyncClient, Client, State, Step, Trajectory
from agentprm.errors import BY_CODE, ConnectionFailed, InternalError, InvalidRequest, RequestError, UnexpectedReply
from tests.agentprm.scripted import STEP, ScriptedService, refusal, reply

TRAJECTORY = Trajectory("craft a torch", (Step("You have 1 coal", "get 1 stick"),))
PAGE = httpx.Response(502, html="<html>Bad gateway</html>")


@pytest.mark.parametrize(
    "answer",
    [refusal(503, "not_ready", "1"), httpx.Response(503, html="<html>"), PAGE, httpx.ConnectError("refused")],
    ids=["draining", "gateway has no upstream", "bad gateway", "nobody listens"],
)
def test_a_service_that_cannot_score_is_not_ready(service: ScriptedService, answer: httpx.Response | Exception) -> None:
    service.answers = [answer]
    assert service.call("ready") is False
    assert service.slept == []


def test_a_ready_service_is_ready_and_a_wrong_address_is_an_error(service: ScriptedService) -> None:
    service.answers = [httpx.Response(200, json={"status": "ready"}), httpx.Response(200, html="<html>hello</html>")]
    assert service.call("ready") is True
    with pytest.raises(UnexpectedReply):
        service.call("ready")


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE.keys())
def test_an_envelope_becomes_the_error_that_the_service_raised(
    service: ScriptedService, kind: type[RequestError]
) -> None:
    raised = kind("why", details={"limit": 3})
    service.answers = [httpx.Response(kind.status, json=raised.envelope(), headers={"retry-after": "7"})]
    with pytest.raises(kind) as caught:
        service.call("score", TRAJECTORY, max_retries=0)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.details, caught.value.retry_after) == ("why", {"limit": 3}, 7.0)


@pytest.mark.parametrize(
    "answer",
    [
        PAGE,
        httpx.Response(200, html="<html>Log in</html>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(418, json={"error": {"code": "teapot", "message": "", "details": {}}}),
        httpx.Response(307, headers={"location": "https://prm/score_step"}),
        reply(),
        reply(STEP, STEP),
        reply({**STEP, "promise": None}),
    ],
    ids=["html", "login page", "foreign json", "unknown code", "redirect", "no result", "two results", "no promise"],
)
def test_a_reply_that_is_not_of_the_contract_is_unexpected(service: ScriptedService, answer: httpx.Response) -> None:
    service.answers = [answer]
    with pytest.raises(UnexpectedReply, match=f"HTTP {answer.status_code}") as caught:
        service.call("score", TRAJECTORY)
    assert caught.value.status == answer.status_code


@pytest.mark.parametrize(
    ("trajectory", "where"),
    [
        (Trajectory("t"), "items.0"),
        (Trajectory("t", (Step("o", ""),)), "items.0.steps.0.action"),
        (Trajectory("t", (Step("\ud800", "a"),)), "lone surrogate"),
        ({"role": "user", "content": "one turn is no chat"}, "items.0.messages"),
        ([{"role": "assistant", "content": {"text": "unread"}}], "items.0.messages.0.content"),
    ],
)
def test_what_breaks_the_contract_is_refused_before_it_is_sent(
    service: ScriptedService, trajectory: Any, where: str
) -> None:
    with pytest.raises(InvalidRequest, match=where):
        service.call("score", trajectory)
    assert service.requests == []


def test_no_items_and_candidates_in_one_string_are_refused(service: ScriptedService) -> None:
    with pytest.raises(InvalidRequest, match="items"):
        service.call("score_step", [])
    with pytest.raises(InvalidRequest, match=r"items\.0\.candidates"):
        service.call("rank", State("t"), "look")


def test_a_failed_connection_names_the_address_without_its_password(service: ScriptedService) -> None:
    service.answers = [httpx.ConnectError("[Errno 111] Connection refused")]
    with pytest.raises(ConnectionFailed) as caught:
        service.call("score", TRAJECTORY, base_url="http://me:secret@prm:8000", max_retries=0)
    assert str(caught.value) == "POST http://prm:8000/score_step: ConnectError [Errno 111] Connection refused"


def test_an_internal_error_keeps_the_id_that_the_log_knows(service: ScriptedService) -> None:
    error = InternalError("the service failed", details={"id": "abc"})
    service.answers = [httpx.Response(500, json=error.envelope())]
    with pytest.raises(InternalError) as caught:
        service.call("score", TRAJECTORY)
    assert caught.value.details == {"id": "abc"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "prm:8000"},
        {"base_url": "ftp://prm"},
        {"base_url": "http://"},
        {"base_url": "http://prm", "api_key": "secret\n"},
    ],
)
def test_what_cannot_be_used_is_refused_at_once(client: type[Client], options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        client(**options)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
