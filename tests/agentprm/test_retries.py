"""Retries: which errors the clients try again, how long they wait, and when they stop."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm import DeadlineExceeded, NotReady, Overloaded, Step, Trajectory, UnexpectedReply
from agentprm.errors import BY_CODE, ConnectionFailed, RequestError
from agentprm.exchange import MAX_PAUSE_SECONDS, retry_pause
from tests.agentprm.scripted import STEP, ScriptedService, refusal, reply

TRAJECTORY = Trajectory("t", (Step("o", "a"),))
FINAL = [kind for kind in BY_CODE.values() if not issubclass(kind, Overloaded | NotReady)]


@pytest.mark.parametrize(("status", "code"), [(429, "overloaded"), (503, "not_ready")])
def test_retry_after_is_waited_for(service: ScriptedService, status: int, code: str) -> None:
    service.answers = [refusal(status, code, "3"), refusal(status, code, "1"), reply(STEP)]
    assert service.call("score", TRAJECTORY).promise == 0.71
    assert service.slept == [3.0, 1.0]
    assert len({request.content for request in service.requests}) == 1


def test_without_retry_after_the_pauses_grow(service: ScriptedService) -> None:
    service.answers = [*(refusal(429, "overloaded") for _ in range(3)), reply(STEP)]
    service.call("score", TRAJECTORY, max_retries=3)
    for pause, longest in zip(service.slept, (0.25, 0.5, 1.0), strict=True):
        assert longest / 2 <= pause < longest


def test_a_date_in_retry_after_counts_as_none(service: ScriptedService) -> None:
    service.answers = [refusal(503, "not_ready", "Wed, 21 Oct 2026 07:28:00 GMT"), reply(STEP)]
    service.call("score", TRAJECTORY)
    assert service.slept[0] < 0.25


def test_the_last_error_is_raised_when_retries_are_spent(service: ScriptedService) -> None:
    service.answers = [refusal(503, "not_ready", "1"), refusal(503, "not_ready", "1"), refusal(429, "overloaded", "5")]
    with pytest.raises(Overloaded) as caught:
        service.call("score", TRAJECTORY, max_retries=2)
    assert caught.value.retry_after == 5.0
    assert service.slept == [1.0, 1.0]


@pytest.mark.parametrize("kind", FINAL, ids=lambda kind: kind.code)
def test_an_error_that_would_come_again_is_raised_at_once(service: ScriptedService, kind: type[RequestError]) -> None:
    service.answers = [refusal(kind.status, kind.code, "1")]
    with pytest.raises(kind):
        service.call("score", TRAJECTORY)
    assert service.slept == []


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("timed out"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_tried_again(service: ScriptedService, error: Exception) -> None:
    service.answers = [error, reply(STEP)]
    assert service.call("score", TRAJECTORY).promise == 0.71
    assert len(service.slept) == 1


@pytest.mark.parametrize("error", [httpx.ReadTimeout(""), httpx.PoolTimeout(""), httpx.LocalProtocolError("")])
def test_a_late_or_impossible_request_is_not_tried_again(service: ScriptedService, error: Exception) -> None:
    service.answers = [error]
    with pytest.raises(ConnectionFailed, match=type(error).__name__):
        service.call("score", TRAJECTORY)
    assert service.slept == []


def test_a_gateway_that_is_overloaded_is_tried_again(service: ScriptedService) -> None:
    service.answers = [httpx.Response(503, html="<html>", headers={"retry-after": "2"}), reply(STEP)]
    service.call("score", TRAJECTORY)
    assert service.slept == [2.0]


def test_a_pause_that_ends_after_the_deadline_is_not_begun(service: ScriptedService) -> None:
    service.answers = [refusal(429, "overloaded", "1")]
    with pytest.raises(Overloaded):
        service.call("score", TRAJECTORY, deadline_ms=1000)
    assert service.slept == []


def test_each_attempt_tells_what_is_left_of_the_deadline(service: ScriptedService) -> None:
    service.seconds_per_answer = 0.1
    service.answers = [refusal(429, "overloaded", "1"), reply(STEP)]
    service.call("score", TRAJECTORY, deadline_ms=1500)
    assert [request.headers["x-deadline-ms"] for request in service.requests] == ["1500", "400"]
    assert [request.extensions["timeout"]["read"] for request in service.requests] == pytest.approx([1.5, 0.4])


def test_a_reply_that_misses_the_deadline_is_a_deadline_exceeded(service: ScriptedService) -> None:
    service.seconds_per_answer = 0.5
    service.answers = [httpx.ReadTimeout("")]
    with pytest.raises(DeadlineExceeded):
        service.call("score", TRAJECTORY, deadline_ms=500)


def test_nothing_is_sent_after_the_deadline(service: ScriptedService) -> None:
    with pytest.raises(DeadlineExceeded):
        service.call("score", TRAJECTORY, deadline_ms=0)
    assert service.requests == []


def test_a_pause_too_long_to_hide_is_left_to_the_caller(service: ScriptedService) -> None:
    service.answers = [refusal(503, "not_ready", "3600")]
    with pytest.raises(NotReady) as caught:
        service.call("score", TRAJECTORY)
    assert caught.value.retry_after == 3600.0


def test_backoff_stops_growing_at_eight_seconds() -> None:
    for retries in (5, 6, 5000):
        pause = retry_pause(Overloaded("x"), retries=retries, max_retries=9999, remaining=60, jitter=0.5)
        assert pause == 6.0


@given(
    st.sampled_from([Overloaded("x"), Overloaded("x", retry_after=2), UnexpectedReply("x", status=503)]),
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_bounded_by_deadline_limit_and_retries(
    error: Exception, retries: int, max_retries: int, remaining: float, jitter: float
) -> None:
    pause = retry_pause(error, retries=retries, max_retries=max_retries, remaining=remaining, jitter=jitter)
    assert pause is None or (retries < max_retries and 0 < pause < remaining and pause <= MAX_PAUSE_SECONDS)
