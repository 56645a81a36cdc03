"""Requests, queues and models are counted once, under bounded labels."""

import asyncio
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, generate_latest

from agentprm.errors import DeadlineExceeded
from service.metrics import Metrics
from service.metrics.families import Registry
from tests.service.echo_app import PATIENCE, GatedEngine, PrefixEchoEngine, item, loaded, metric, serving
from tests.service.metrics.asking import ask_all_kinds, exposition, series
from tests.service.score_cache.caching import samples

ROOT = Path(__file__).parents[3]


def test_all_series_are_there_from_the_start() -> None:
    async def scenario() -> None:
        engine = PrefixEchoEngine(10**6)
        async with serving(engine, loaded(GatedEngine(), "second"), score_cache_items=100) as client:
            before = series(await exposition(client))
            await ask_all_kinds(client, engine)
            assert series(await exposition(client)) == before

    asyncio.run(scenario())


def test_a_request_is_counted_once_with_the_model_that_it_reached() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, loaded(GatedEngine(), "second")) as client:
            await ask_all_kinds(client, engine)
            counted = samples(await exposition(client), "agentprm_requests_total")
        found = {tuple(labels[name] for name in ("route", "model", "code")): n for labels, n in counted if n}
        found.pop(("/metrics", "", "200"), None)
        assert found == {
            ("/score_step", "echo@1", "200"): 1,
            ("/score_trajectory", "echo@1", "200"): 1,
            ("/rank_actions", "echo@1", "200"): 1,
            ("/score_step", "", "422"): 1,
            ("/score_step", "", "404"): 1,
            ("/score_step", "echo@1", "413"): 1,
            ("other", "", "404"): 1,
            ("/models", "", "405"): 1,
            ("/score_step", "echo@1", "499"): 1,
            ("/score_step", "echo@1", "504"): 1,
        }

    asyncio.run(scenario())


def test_refusals_deadlines_and_clients_that_left_are_counted_by_their_kind() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine) as client:
            await ask_all_kinds(client, engine)
            text = await exposition(client)
        for name, label, expected in (
            ("rejected_total", "reason", {"too_long": 1, "deadline_exceeded": 1}),
            ("deadline_exceeded_total", "stage", {"queue": 1}),
            ("cancelled_total", "route", {"/score_step": 1}),
        ):
            assert {labels[label]: n for labels, n in samples(text, f"agentprm_{name}") if n} == expected

    asyncio.run(scenario())


def test_what_waits_is_shown_in_sequences_and_leaves_with_its_turn() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine) as client:
            gauge = 'agentprm_queue_sequences{model="echo@1"}'
            async with engine.held():
                asked = [asyncio.create_task(client.post("/score_step", json={"items": [item("first")]}))]
                await engine.entered()
                body = {"items": [item(f"second {number}") for number in range(3)]}
                asked.append(asyncio.create_task(client.post("/score_step", json=body)))
                async with asyncio.timeout(PATIENCE):
                    while await metric(client, gauge) != 3:  # noqa: ASYNC110 - HTTP offers no event
                        await asyncio.sleep(0)
            assert all(reply.status_code == 200 for reply in await asyncio.gather(*asked))
            assert await metric(client, gauge) == 0

    asyncio.run(scenario())


def test_a_model_is_shown_with_how_long_it_took_to_load_and_what_runs_it() -> None:
    async def scenario() -> str:
        async with serving() as client:
            assert await metric(client, 'agentprm_model_load_duration_seconds{model="echo@1"}') > 0
            return await exposition(client)

    text = asyncio.run(scenario())
    declared = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    ((build, value),) = samples(text, "agentprm_build_info")
    assert (build["version"], value) == (declared[1], 1)
    assert build["torch"].startswith("2.")


def test_a_request_that_ends_after_its_model_has_left_brings_no_series_back() -> None:
    metrics = Metrics(["/score_step"], ["/score_step"])
    before = series(metrics.exposition().decode())
    metrics.add_model("gone@1")
    metrics.process.set_model_info("gone@1", digest="0", device="cpu", dtype="float32")
    metrics.remove_model("gone@1")
    metrics.requests.on_request("/score_step", 200, 0.1, "gone@1")
    text = metrics.exposition().decode()
    assert series(text) == before
    assert 'agentprm_requests_total{code="200",model="",route="/score_step"} 1.0' in text


def test_a_deadline_counts_at_its_stage() -> None:
    metrics = Metrics()
    for stage in ("sample", "admission", "tokenize", "cache", "queue"):
        metrics.requests.on_error(DeadlineExceeded("late", details={"stage": stage}))
        assert f'agentprm_deadline_exceeded_total{{stage="{stage}"}} 1.0' in metrics.exposition().decode()
    assert 'agentprm_rejected_total{reason="deadline_exceeded"} 5.0' in metrics.exposition().decode()


def test_only_the_registry_of_an_application_leaves_out_when_a_series_was_created() -> None:
    ours, theirs = Registry(), CollectorRegistry()
    for registry in (ours, theirs):
        Counter("x", "Text.", registry=registry).inc()
    assert series(generate_latest(ours).decode()) == {"x_total"}
    assert series(generate_latest(theirs).decode()) == {"x_total", "x_created"}
