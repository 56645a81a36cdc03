"""Replies to a caller when all is well."""

import asyncio
import re
from typing import Any

from agentprm import wire
from service.engine.echo import EchoEngine
from tests.service.echo_app import (
    GatedEngine,
    PrefixEchoEngine,
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
            chat_result, steps_result = (await client.post("/score_step", json=body)).json()["results"]
        assert {**chat_result, "usage": None} == {**steps_result, "usage": None}
        assert steps_result["usage"] == {
            "tokens": 30,
            "computed": 0,
            "prefix_cache": 0,
            "score_cache": 30,
            "unknown": 0,
        }

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
            items=64,
            candidates=64,
            tokens=2000,
            characters=128_000,
            body_bytes=4 * 1024 * 1024,
            queue_tokens=131_072,
            requests=1024,
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
