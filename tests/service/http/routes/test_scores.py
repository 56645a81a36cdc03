"""What a caller gets when all is well."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from agentprm import wire
from service.engine.echo import EchoEngine
from service.http import examples
from tests.service.echo_app import (
    BrokenEngine,
    GatedEngine,
    PrefixEchoEngine,
    ThreadDied,
    item,
    loaded,
    metric,
    proposal,
    serving,
)


def test_score_step_answers_every_item_in_order() -> None:
    async def scenario() -> None:
        async with serving() as client:
            body = {"items": [item("Craft.", "look", id="a"), item("Craft.", "look", "get 1 oak log")]}
            reply = await client.post("/score_step", json=body)
            scores = wire.ScoreStepReply.model_validate_json(reply.content)
        assert scores.model == wire.ModelIdentity(name="echo", version="1", digest="sha256:0")
        first, second = scores.results
        assert (first.id, first.progress) == ("a", None)
        assert second.id is None
        assert second.progress == second.promise - first.promise
        assert first.usage.tokens == first.usage.computed > 0

    asyncio.run(scenario())


def test_the_three_routes_agree() -> None:
    async def scenario() -> None:
        async with serving() as client:
            items = {"items": [item("Craft.", "look", "go")]}
            last = (await client.post("/score_step", json=items)).json()["results"][0]
            every = (await client.post("/score_trajectory", json=items)).json()["results"][0]
            state = item("Craft.", "look", observation="saw 1", candidates=["stay", "go"])
            ranked = (await client.post("/rank_actions", json={"items": [state]})).json()["results"][0]
        go = next(candidate for candidate in ranked["ranking"] if candidate["index"] == 1)
        score = {key: last[key] for key in ("promise", "progress", "raw")}
        assert score == every["steps"][1] == {key: go[key] for key in score}
        assert [candidate["rank"] for candidate in ranked["ranking"]] == [0, 1]

    asyncio.run(scenario())


def test_a_chat_scores_as_the_steps_it_holds() -> None:
    async def scenario() -> None:
        chat = [
            {"role": "user", "content": "Craft."},
            {"role": "assistant", "content": "look"},
            {"role": "tool", "content": "a table"},
            {"role": "assistant", "content": "go"},
        ]
        steps = [{"action": "look"}, {"observation": "a table", "action": "go"}]
        async with serving() as client:
            body = {"items": [{"messages": chat}, {"task": "Craft.", "steps": steps}]}
            one, other = (await client.post("/score_step", json=body)).json()["results"]
        assert {**one, "usage": None} == {**other, "usage": None}
        assert other["usage"] == {"tokens": 30, "computed": 0, "prefix_cache": 0, "score_cache": 30}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("route", "requests", "reply", "kind"),
    [
        ("/score_step", examples.SCORE_REQUESTS, examples.STEP_REPLY, wire.ScoreStepReply),
        ("/score_trajectory", examples.SCORE_REQUESTS, examples.TRAJECTORY_REPLY, wire.ScoreTrajectoryReply),
        ("/rank_actions", examples.RANK_REQUESTS, examples.RANK_REPLY, wire.RankActionsReply),
    ],
)
def test_the_documented_examples_are_true(
    route: str, requests: dict[str, dict[str, Any]], reply: dict[str, Any], kind: type[wire.Body]
) -> None:
    async def scenario() -> None:
        async with serving() as client:
            for name, example in requests.items():
                expected = 422 if name == "sample" else 200  # there is no policy here
                assert (await client.post(route, json=example["value"])).status_code == expected
        kind.model_validate(reply)

    asyncio.run(scenario())


def test_every_score_route_documents_its_replies_and_errors() -> None:
    async def scenario() -> None:
        async with serving() as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
        for route in ("/score_step", "/score_trajectory", "/rank_actions"):
            post = paths[route]["post"]
            assert set(post["responses"]) == {
                "200",
                "401",
                "403",
                "404",
                "408",
                "413",
                "422",
                "429",
                "500",
                "502",
                "503",
                "504",
            }
            assert post["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
            assert post["requestBody"]["content"]["application/json"]["examples"]

    asyncio.run(scenario())


def test_the_page_of_docs_needs_no_other_host() -> None:
    types = {"css": "text/css", "js": "text/javascript", "png": "image/png"}

    async def scenario() -> None:
        async with serving() as client:
            page = (await client.get("/docs")).text
            named = re.findall(r'(?:src|href)="([^"]*)"', page)
            assert sorted(url.rpartition(".")[2] for url in named) == sorted(types)
            assert "http" not in page
            for url in named:
                asset = await client.get(url)
                assert asset.status_code == 200
                assert asset.headers["content-type"].partition(";")[0] == types[url.rpartition(".")[2]]
            refused = await client.post(named[0])
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")

    asyncio.run(scenario())


def test_models_are_found_by_name_version_and_alias() -> None:
    async def scenario() -> None:
        aliases = {"demo": "echo@1", "prod": "second@1"}
        async with serving(loaded(EchoEngine()), loaded(EchoEngine(), "second"), aliases=aliases) as client:

            async def answering(**body: Any) -> Any:
                reply = await client.post("/score_step", json={"items": [item()], **body})
                return reply.json()["model"]["name"]

            assert await answering() == "echo"
            assert await answering(model=None) == "echo"
            for reference in ("second", "second@1", "prod"):
                assert await answering(model=reference) == "second"
            models = wire.ModelsReply.model_validate_json((await client.get("/models")).content).models
        assert [(model.name, model.default, model.aliases) for model in models] == [
            ("echo", True, ["demo"]),
            ("second", False, ["prod"]),
        ]
        assert models[0].limits == wire.Limits(
            items=64, candidates=64, tokens=2000, body_bytes=4 * 1024 * 1024, queue_tokens=131_072, requests=1024
        )

    asyncio.run(scenario())


def test_a_request_id_comes_back_or_is_made() -> None:
    async def scenario() -> None:
        async with serving() as client:

            async def id_for(proposed: str) -> str:
                return (await client.get("/health", headers={"x-request-id": proposed})).headers["x-request-id"]

            assert await id_for("trace-1/a") == "trace-1/a"
            assert re.fullmatch("[0-9a-f]{32}", await id_for("x" * 129))
            assert re.fullmatch("[0-9a-f]{32}", await id_for("two words"))
            refused = await client.get("/nothing", headers={"x-request-id": "mine"})
            assert (refused.status_code, refused.headers["x-request-id"]) == (404, "mine")

    asyncio.run(scenario())


def test_the_reply_tells_where_the_time_went() -> None:
    async def scenario() -> None:
        async with serving() as client:
            timing = (await client.post("/score_step", json={"items": [item()]})).headers["server-timing"]
        assert re.fullmatch(r"tokenize;dur=[\d.]+, cache;dur=[\d.]+, queue;dur=[\d.]+, forward;dur=[\d.]+", timing)

    asyncio.run(scenario())


def test_the_priority_is_documented() -> None:
    async def scenario() -> None:
        async with serving() as client:
            schema = (await client.get("/openapi.json")).json()
        assert schema["components"]["schemas"]["Priority"]["enum"] == ["interactive", "bulk"]
        for route, default in (
            ("score_step", "interactive"),
            ("rank_actions", "interactive"),
            ("score_trajectory", "bulk"),
        ):
            headers = {one["name"]: one for one in schema["paths"][f"/{route}"]["post"]["parameters"]}
            assert headers["x-priority"]["schema"]["default"] == default
            assert headers["x-priority"]["description"]

    asyncio.run(scenario())


def test_metrics_tell_computed_tokens_from_reused_ones_and_what_the_prefix_cache_holds() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(100)
        async with serving(engine) as client:
            computed, reused = (
                f'agentprm_tokens_total{{model="echo@1",source="{source}"}}' for source in ("computed", "prefix_cache")
            )
            assert await metric(client, reused) == 0
            before = await metric(client, computed)
            usages = []
            for _ in range(2):
                reply = await client.post("/score_step", json={"items": [item("t" * 50)]})
                usages.append(reply.json()["results"][0]["usage"])
            assert await metric(client, computed) - before == usages[0]["computed"] == usages[0]["tokens"]
            assert await metric(client, reused) == usages[1]["prefix_cache"] == usages[1]["tokens"]
            assert await metric(client, 'agentprm_prefix_cache_limit_bytes{model="echo@1"}') == 100
            assert (
                await metric(client, 'agentprm_prefix_cache_bytes{model="echo@1"}')
                == engine.prefix_cache.used_bytes
                > 0
            )
            await client.post("/score_step", json={"items": [item("u" * 90)]})
            evicted = await metric(client, 'agentprm_prefix_cache_evicted_bytes_total{model="echo@1"}')
            assert evicted == engine.prefix_cache.evicted_bytes > 0

    asyncio.run(scenario())


def test_an_engine_failure_is_500_without_internals_and_the_next_request_works() -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            engine.failure = RuntimeError("secret path /root")
            failed = await client.post("/score_step", json={"items": [item()]})
            assert failed.status_code == 500
            assert failed.json()["error"]["details"]["id"]
            assert "secret" not in failed.text
            engine.failure = None
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200

    asyncio.run(scenario())


def test_a_dead_batcher_is_not_ready_and_asks_for_a_new_process() -> None:
    async def scenario() -> None:
        engine = BrokenEngine()
        async with serving(engine) as client:
            assert (await client.get("/ready")).status_code == 200
            assert await metric(client, "agentprm_ready") == 1
            engine.failure = RuntimeError()
            assert (await client.post("/rank_actions", json={"items": [proposal("a")]})).status_code == 500
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 200
            engine.failure = ThreadDied()
            assert (await client.post("/rank_actions", json={"items": [proposal("a")]})).status_code == 500
            red = await client.get("/ready")
            assert (red.status_code, red.json()["error"]["code"]) == (503, "not_ready")
            assert await metric(client, "agentprm_ready") == 0
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 503
            sick = await client.get("/health")
            assert sick.status_code == 503
            assert "echo@1" in sick.json()["error"]["message"]

    asyncio.run(scenario())


def test_a_service_is_not_ready_before_its_start_and_after_its_end() -> None:
    async def scenario() -> None:
        async with serving() as client:
            pass
        transport = client._transport
        async with httpx.AsyncClient(transport=transport, base_url="http://echo") as late:
            assert (await late.get("/ready")).status_code == 503
            assert (await late.get("/health")).status_code == 200
            assert (await late.post("/score_step", json={"items": [item()]})).status_code == 503

    asyncio.run(scenario())


def test_metrics_count_requests_under_bounded_labels() -> None:
    async def scenario() -> None:
        async with serving() as client:
            assert await metric(client, 'agentprm_requests_total{code="200",model="echo@1",route="/rank_actions"}') == 0
            await client.post("/rank_actions", json={"items": [proposal("a", "b")]})
            await client.get("/made/up")
            text = (await client.get("/metrics")).text
            assert await metric(client, 'agentprm_requests_total{code="200",model="echo@1",route="/rank_actions"}') == 1
            assert await metric(client, 'agentprm_requests_total{code="404",model="",route="other"}') == 1
            assert await metric(client, 'agentprm_batch_sequences_sum{model="echo@1"}') == 3  # one is the warm-up
            assert await metric(client, 'agentprm_request_duration_seconds_count{route="/rank_actions"}') == 1
        assert "made" not in text
        assert 'agentprm_model_info{device="cpu",digest="sha256:0",dtype="float32",model="echo@1"} 1.0' in text

    asyncio.run(scenario())


def test_a_long_item_is_computed_in_pieces_that_suit_the_device_where_the_engine_keeps_them() -> None:
    async def scenario() -> None:
        for engine, pieces in ((PrefixEchoEngine(10**6), 2), (PrefixEchoEngine(0), 1), (GatedEngine(), 1)):
            async with serving(engine) as client:
                reply = await client.post("/score_step", json={"items": [item("t" * 600)]})
            lens = [len(ids) for call in engine.calls[1:] for ids in call]
            assert lens == [512, 616][-pieces:]
            assert reply.json()["results"][0]["usage"]["computed"] == 616

    asyncio.run(scenario())
