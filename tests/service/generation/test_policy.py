"""Candidates that the service samples itself: best of n in one call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from agentprm import AsyncClient, Sample, State, Step, wire
from service.generation.policy import to_chat
from service.http import examples
from tests.service.echo_app import PATIENCE, GatedEngine, item, pass_time, proposal, serving
from tests.service.generation.conftest import CHAT, Server, loaded_judge


@asynccontextmanager
async def acting(server: Server, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose model echoes and whose policy is the server's."""
    async with serving(policy_url=server.url, policy_model="actor", **settings) as client:
        yield client


def sampling(**sample: Any) -> dict[str, Any]:
    return {**item("Craft.", "look"), "observation": "a table", "sample": {"n": 3, **sample}}


def acts(*actions: str) -> list[dict[str, Any]]:
    return [{"content": action} for action in actions]


async def rank(client: httpx.AsyncClient, *items: dict[str, Any], **more: Any) -> httpx.Response:
    return await client.post("/rank_actions", json={"items": items, **more})


def test_sampled_actions_are_ranked_as_if_they_had_been_sent_and_come_back_with_their_text(server: Server) -> None:
    async def scenario() -> None:
        async with acting(server, remote_calls=1) as client:  # one at a time, so that the script's order is theirs
            await server.answers_with(*acts("go", "stay", "go"))
            reply = await rank(client, sampling(), proposal("go", "stay", "go"))
            sampled, given = (result["ranking"] for result in reply.json()["results"])
        assert [action["action"] for action in sampled] == [["go", "stay", "go"][action["index"]] for action in sampled]
        assert all(action["complete"] for action in sampled)
        added = {"action", "complete"}
        assert [{name: action[name] for name in action.keys() - added} for action in sampled] == given
        assert reply.headers["server-timing"].startswith("sample;dur=")
        assert wire.RankActionsReply.model_validate_json(reply.content).results[0].ranking[0].action is not None

    asyncio.run(scenario())


def test_the_policy_is_asked_for_each_action_in_chat_form(server: Server) -> None:
    async def scenario() -> None:
        async with acting(server) as client:
            await rank(client, sampling(temperature=0.5, max_tokens=9, stop=["\n"]))
            requests = (await server.happened())["requests"]
        assert len(requests) == 3
        body = requests[0]["body"]
        assert body["messages"] == [
            {"role": "user", "content": "Craft.\n\nsaw 0"},
            {"role": "assistant", "content": "look"},
            {"role": "user", "content": "a table"},
        ]
        asked = ("model", "temperature", "max_tokens", "stop")
        assert [body[name] for name in asked] == ["actor", 0.5, 9, ["\n"]]
        assert "logprobs" not in body

    asyncio.run(scenario())


def test_the_documented_example_is_true(server: Server) -> None:
    async def scenario() -> None:
        async with acting(server) as client:
            reply = await client.post("/rank_actions", json=examples.RANK_REQUESTS["sample"]["value"])
        assert len(reply.json()["results"][0]["ranking"]) == 8

    asyncio.run(scenario())


def test_turns_always_alternate() -> None:
    steps = (Step("", "a"), Step("", "b"), Step("saw", "c"))
    chat = to_chat(State("task", steps))
    assert [turn["role"] for turn in chat] == ["user", "assistant"] * 3 + ["user"]
    assert [turn["content"] for turn in chat] == ["task", "a", "", "b", "saw", "c", ""]


def test_an_action_that_was_cut_is_marked_and_an_empty_one_is_an_error(server: Server) -> None:
    async def scenario() -> None:
        async with acting(server) as client:
            await server.answers_with({"content": "go and", "finish": "length"})
            (cut,) = (await rank(client, sampling(n=1))).json()["results"][0]["ranking"]
            assert (cut["action"], cut["complete"]) == ("go and", False)
            await server.answers_with({"content": " \n"})
            empty = await rank(client, sampling(n=1))
            assert (empty.status_code, empty.json()["error"]["code"]) == (502, "upstream_failed")
            half = '{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}'
            await server.answers_with({"reply": half})
            assert (await rank(client, sampling(n=1))).status_code == 502

    asyncio.run(scenario())


def test_without_a_policy_sampling_is_refused_and_ranking_works(server: Server) -> None:
    async def scenario() -> None:
        async with serving() as client:
            refused = await rank(client, proposal("a"), sampling())
            assert (refused.status_code, refused.json()["error"]["details"]) == (422, {"item": 1})
            assert "action" not in (await rank(client, proposal("a"))).json()["results"][0]["ranking"][0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"sample": {"n": 0}}, 422),
        ({"sample": {"n": 65}}, 413),
        ({"sample": {"n": 2, "temperature": -1}}, 422),
        ({"sample": {"n": 2, "top": 1}}, 422),
        ({"candidates": ["a"]}, 422),
        ({"sample": None}, 422),
    ],
)
def test_a_wrong_sample_is_refused_before_anything_is_asked(server: Server, wrong: dict[str, Any], status: int) -> None:
    async def scenario() -> None:
        async with acting(server) as client:
            assert (await rank(client, {**sampling(), **wrong})).status_code == status
            assert (await server.happened())["asked"] == 0

    asyncio.run(scenario())


def test_a_deadline_and_a_client_that_leaves_end_the_sampling(server: Server) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, policy_url=server.url) as client, asyncio.timeout(PATIENCE):
            async with server.held():
                asked_late = asyncio.create_task(rank(client, sampling(), deadline_ms=5000))
                await server.happened(running=3)
                pass_time(5.0)
                late = await asked_late
                assert (late.status_code, late.json()["error"]["details"]) == (504, {"stage": "sample"})
                leaves = asyncio.create_task(rank(client, sampling(n=2)))
                asked = (await server.happened(left=3, running=2))["asked"]
                leaves.cancel()
                await server.happened(left=asked)
            assert len(engine.calls) == 1  # the warm-up

    asyncio.run(scenario())


def test_a_judge_ranks_what_a_policy_samples_for_the_client(server: Server) -> None:
    async def scenario() -> None:
        async with (
            serving(loaded_judge(CHAT), judge_url=server.url, policy_url=server.url) as service,
            AsyncClient("http://echo", transport=service._transport) as prm,
        ):
            best = await prm.rank(State("Craft.", observation="a table"), Sample(n=4, temperature=1.0))
        assert len(best.ranking) == 4
        assert all(ranked.action and ranked.complete is not None for ranked in best.ranking)
        assert [ranked.raw for ranked in best.ranking] == sorted((ranked.raw for ranked in best.ranking), reverse=True)

    asyncio.run(scenario())
