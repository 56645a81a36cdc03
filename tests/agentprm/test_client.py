"""What the clients send, and what they make of a reply."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentprm
from agentprm import AsyncClient, Client, RankItem, Sample, State, Step, Trajectory, TrajectoryItem
from agentprm.errors import BY_CODE, ConnectionFailed, InternalError, InvalidRequest, RequestError, UnexpectedReply
from tests.agentprm.scripted import MODEL, STEP, USAGE, ScriptedService, refusal, reply

TRAJECTORY = Trajectory("craft a torch", (Step("You have 1 coal", "get 1 stick"), Step("Got 1 stick", "craft 1 torch")))
STEPS = [
    {"observation": "You have 1 coal", "action": "get 1 stick"},
    {"observation": "Got 1 stick", "action": "craft 1 torch"},
]
CALL = {"type": "function", "function": {"name": "craft", "arguments": '{"item": "torch"}'}}
RANKED: dict[str, Any] = {
    "id": None,
    "ranking": [
        {"index": 1, "rank": 0, "promise": 0.8, "progress": 0.1, "raw": 1.4},
        {"index": 0, "rank": 1, "promise": 0.4, "progress": -0.3, "raw": -0.4},
    ],
    "usage": USAGE,
}
INFO = {
    **MODEL,
    "aliases": ["demo"],
    "default": True,
    "base_model": "",
    "dtype": "float32",
    "device": "cpu",
    "limits": {
        "items": 64,
        "candidates": 64,
        "tokens": 1024,
        "body_bytes": 4194304,
        "queue_tokens": 131072,
        "requests": 1024,
    },
    "training": {},
    "evaluation": {},
}
PAGE = httpx.Response(502, html="<html>Bad gateway</html>")


def sent(service: ScriptedService) -> tuple[str, str, Any]:
    (request,) = service.requests
    return request.method, str(request.url), json.loads(request.content) if request.content else None


def test_score_sends_task_and_steps_and_returns_the_one_result(service: ScriptedService) -> None:
    service.answers = [reply(STEP)]
    result = service.call("score", TRAJECTORY)
    body = {"items": [{"task": "craft a torch", "steps": STEPS}]}
    assert sent(service) == ("POST", "http://prm:8000/score_step", body)
    assert service.requests[0].headers["content-type"] == "application/json"
    assert (result.promise, result.progress, result.raw) == (0.71, 0.08, 0.9)
    assert result.usage.prefix_cache == 101


def test_every_form_of_a_trajectory_is_sent_in_its_own_form(service: ScriptedService) -> None:
    chat = [
        {"role": "user", "content": "craft a torch"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
    ]
    item = TrajectoryItem.model_validate({"id": "a", "task": "craft a torch", "steps": STEPS})
    service.answers = [reply(STEP, STEP, STEP)]
    answer = service.call("score_step", [TRAJECTORY, chat, item], model="demo@1")
    assert sent(service)[2] == {
        "model": "demo@1",
        "items": [
            {"task": "craft a torch", "steps": STEPS},
            {"messages": [chat[0], {"role": "assistant", "tool_calls": [CALL]}]},
            {"id": "a", "task": "craft a torch", "steps": STEPS},
        ],
    }
    assert answer.model.digest == "sha256:5f0c"


def test_score_trajectory_returns_every_step(service: ScriptedService) -> None:
    first, second = {"promise": 0.6, "progress": None, "raw": 0.4}, {"promise": 0.7, "progress": 0.1, "raw": 0.8}
    service.answers = [reply({"id": None, "steps": [first, second], "usage": USAGE})]
    answer = service.call("score_trajectory", [TRAJECTORY])
    assert sent(service)[:2] == ("POST", "http://prm:8000/score_trajectory")
    assert sent(service)[2] == {"items": [{"task": "craft a torch", "steps": STEPS}]}
    assert [step.progress for step in answer.results[0].steps] == [None, 0.1]


def test_rank_sends_a_state_and_its_candidates(service: ScriptedService) -> None:
    service.answers = [reply(RANKED)]
    state = State("craft a torch", TRAJECTORY.steps[:1], "Got 1 stick")
    result = service.call("rank", state, ("look", "craft 1 torch"))
    item = {
        "task": "craft a torch",
        "steps": STEPS[:1],
        "observation": "Got 1 stick",
        "candidates": ["look", "craft 1 torch"],
    }
    assert sent(service) == ("POST", "http://prm:8000/rank_actions", {"items": [item]})
    assert [one.index for one in result.ranking] == [1, 0]


def test_rank_has_the_service_sample_the_candidates_and_gets_their_texts(service: ScriptedService) -> None:
    service.answers = [reply({**RANKED, "ranking": [{**RANKED["ranking"][0], "action": "look", "complete": True}]})]
    best = service.call("rank", State("craft a torch"), Sample(n=8, temperature=0.7)).ranking[0]
    sample = {"n": 8, "temperature": 0.7, "max_tokens": 512, "stop": []}
    item = {"task": "craft a torch", "steps": [], "observation": "", "sample": sample}
    assert sent(service)[2] == {"items": [item]}
    assert (best.action, best.complete) == ("look", True)


def test_rank_actions_takes_chats_with_tool_calls_and_wire_items(service: ScriptedService) -> None:
    chat = [{"role": "user", "content": "craft a torch"}]
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    item = RankItem.model_validate({"id": "b", "task": "t", "candidates": ["x"]})
    service.answers = [reply(RANKED, RANKED)]
    service.call("rank_actions", [(chat, ["look", turn]), item])
    assert sent(service)[2]["items"] == [
        {"messages": chat, "candidates": ["look", {"role": "assistant", "tool_calls": [CALL]}]},
        {"id": "b", "task": "t", "candidates": ["x"]},
    ]


def test_headers_carry_key_deadline_and_request_id(service: ScriptedService) -> None:
    service.answers = [reply(STEP)]
    service.call("score", TRAJECTORY, api_key="secret", deadline_ms=250, request_id="run-7")
    headers = service.requests[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert (headers["x-deadline-ms"], headers["x-request-id"]) == ("250", "run-7")


def test_headers_that_nobody_asked_for_are_not_sent(service: ScriptedService) -> None:
    service.answers = [reply(STEP)]
    service.call("score", TRAJECTORY)
    assert not {"authorization", "x-deadline-ms", "x-request-id"} & set(service.requests[0].headers)


def test_a_path_in_the_base_url_stays(service: ScriptedService) -> None:
    service.answers = [httpx.Response(200, json={"models": [INFO]})]
    answer = service.call("models", base_url="https://host/prm/")
    assert sent(service) == ("GET", "https://host/prm/models", None)
    assert answer.models[0].limits.candidates == 64


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


def test_a_field_that_a_newer_service_adds_is_ignored(service: ScriptedService) -> None:
    service.answers = [reply({**STEP, "uncertainty": 0.2, "usage": {**USAGE, "disk_cache": 0}})]
    assert service.call("score", TRAJECTORY).promise == 0.71


@pytest.mark.parametrize(
    ("trajectory", "where"),
    [
        (Trajectory("t"), "items.0"),
        (Trajectory("t", (Step("o", ""),)), "items.0.steps.0.action"),
        (Trajectory("t", (Step("\ud800", "a"),)), "lone surrogate"),
        ({"role": "user", "content": "one turn is no chat"}, "items.0.messages"),
        ([{"role": "assistant", "content": "x", "reasoning_content": "unread"}], "items.0.messages.0"),
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


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(client: type[Any]) -> dict[str, list[str]]:
        public = {name: one for name, one in vars(client).items() if callable(one) and not name.startswith("_")}
        return {name: list(inspect.signature(one).parameters) for name, one in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert set(methods(Client)) >= {"score", "rank", "score_step", "score_trajectory", "rank_actions", "models"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "fastapi", "starlette", "redis", "prometheus_client"}
    program = f"import sys, agentprm; print(sorted({heavy} & set(sys.modules)))"
    root = Path(agentprm.__file__).parent.parent
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=100)
    assert done.stdout == "[]\n"


def test_every_exported_name_exists_once() -> None:
    assert len(set(agentprm.__all__)) == len(agentprm.__all__)
    assert all(hasattr(agentprm, name) for name in agentprm.__all__)


def test_every_step_of_a_trajectory_has_one_id_for_proxies_and_another_trajectory_has_another(
    service: ScriptedService,
) -> None:
    """Whatever the form, and without a word of its text."""

    def sent_id(method: str, *arguments: Any, answers: int = 1) -> str | None:
        result: dict[str, Any] = {**STEP, "ranking": [], "steps": []}
        service.answers = [reply(*[result] * answers)]
        service.call(method, *arguments)
        headers: Mapping[str, str] = service.requests[-1].headers
        return headers.get("x-trajectory-id")

    state = State("Craft a door.", (), "a forest")
    first = state.take("get 1 log")
    second = Trajectory(first.task, (*first.steps, Step("Got it.", "craft 4 planks")))
    mine = sent_id("score_step", [first])
    assert mine is not None
    assert re.fullmatch(r"[0-9a-f]{16}", mine)
    assert {sent_id("score_step", [second]), sent_id("score_trajectory", [second, first], answers=2)} == {mine}
    assert sent_id("rank_actions", [(state, ["get 1 log"])]) == mine
    assert sent_id("score_step", [Trajectory("Craft a bed.", first.steps)]) not in (mine, None)
    assert sent_id("score_step", [first, Trajectory("Craft a bed.", first.steps)], answers=2) is None

    rules, task = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Craft a door."}
    chat = [rules, task, {"role": "assistant", "content": "get 1 log"}]
    longer = [*chat, {"role": "user", "content": "Got it."}, {"role": "assistant", "content": "craft 4 planks"}]
    chats = {
        sent_id("score_step", [chat]),
        sent_id("score_step", [longer]),
        sent_id("rank_actions", [(chat[:2], ["x"])]),
    }
    assert len(chats) == 1
    other = [rules, {"role": "user", "content": "Craft a bed."}, chat[-1]]
    assert sent_id("score_step", [other]) not in chats
