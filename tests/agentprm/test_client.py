"""Requests that the clients send, and what they return of a reply."""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from agentprm import InternalError, RankItem, Sample, State, Step, Trajectory, TrajectoryItem
from tests.agentprm.scripted import MODEL, STEP, USAGE, ScriptedService, items_of, refusal, reply

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
        "characters": 65536,
        "queue_tokens": 131072,
        "requests": 1024,
    },
    "training": {},
    "evaluation": {},
}


def sent(service: ScriptedService) -> tuple[str, str, Any]:
    """Method, URL and body of the one request, without the ids of its items."""
    (request,) = service.requests
    body = {**json.loads(request.content), "items": items_of(request)} if request.content else None
    return request.method, str(request.url), body


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
            {"task": "craft a torch", "steps": STEPS},
        ],
    }
    assert [result.id for result in answer.results] == [None, None, "a"]
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
    assert [candidate.index for candidate in result.ranking] == [1, 0]


def test_rank_has_the_service_sample_the_candidates_and_gets_their_texts(service: ScriptedService) -> None:
    sampled = [{**candidate, "action": "look", "complete": True} for candidate in RANKED["ranking"]]
    service.answers = [reply({**RANKED, "ranking": sampled})]
    best = service.call("rank", State("craft a torch"), Sample(n=2, temperature=0.7)).ranking[0]
    sample = {"n": 2, "temperature": 0.7, "max_tokens": 512, "stop": []}
    item = {"task": "craft a torch", "steps": [], "observation": "", "sample": sample}
    assert sent(service)[2] == {"items": [item]}
    assert (best.action, best.complete) == ("look", True)


def test_rank_actions_takes_chats_with_tool_calls_and_wire_items(service: ScriptedService) -> None:
    chat = [{"role": "user", "content": "craft a torch"}]
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    item = RankItem.model_validate({"id": "b", "task": "t", "candidates": ["x", "y"]})
    service.answers = [reply(RANKED, RANKED)]
    service.call("rank_actions", [(chat, ["look", turn]), item])
    assert sent(service)[2]["items"] == [
        {"messages": chat, "candidates": ["look", {"role": "assistant", "tool_calls": [CALL]}]},
        {"task": "t", "candidates": ["x", "y"]},
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


def test_a_field_that_a_newer_service_adds_is_ignored(service: ScriptedService) -> None:
    service.answers = [reply({**STEP, "uncertainty": 0.2, "usage": {**USAGE, "disk_cache": 0}})]
    assert service.call("score", TRAJECTORY).promise == 0.71


def test_every_step_of_a_trajectory_has_one_id_for_proxies_and_another_trajectory_has_another(
    service: ScriptedService,
) -> None:
    """The id is the same in every form of the trajectory, and holds no word of its text."""

    def sent_id(method: str, *arguments: Any) -> str | None:
        service.answers = [refusal(500, "internal")]
        with pytest.raises(InternalError):
            service.call(method, *arguments)
        headers: Mapping[str, str] = service.requests[-1].headers
        return headers.get("x-trajectory-id")

    state = State("Craft a door.", (), "a forest")
    first = state.take("get 1 log")
    second = Trajectory(first.task, (*first.steps, Step("Got it.", "craft 4 planks")))
    mine = sent_id("score_step", [first])
    assert mine is not None
    assert re.fullmatch(r"[0-9a-f]{16}", mine)
    assert {sent_id("score_step", [second]), sent_id("score_trajectory", [second, first])} == {mine}
    assert sent_id("rank_actions", [(state, ["get 1 log"])]) == mine
    assert sent_id("score_step", [Trajectory("Craft a bed.", first.steps)]) not in (mine, None)
    assert sent_id("score_step", [first, Trajectory("Craft a bed.", first.steps)]) is None

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
