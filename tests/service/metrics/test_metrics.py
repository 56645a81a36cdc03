"""What is counted, under which labels, and that docs/metrics.md says so."""

import asyncio
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from agentprm.errors import DeadlineExceeded
from service.engine.contract import SequenceScores
from service.http.middleware.asgi import Message, Scope
from service.metrics import Metrics
from service.metrics.buckets import PROGRESS, PROMISE
from service.metrics.families import Distribution
from tests.service.echo_app import (
    PATIENCE,
    GatedEngine,
    PrefixEchoEngine,
    item,
    loaded,
    metric,
    pass_time,
    proposal,
    serving,
)
from tests.service.score_cache.caching import samples

ROOT = Path(__file__).parents[3]
STAGES = ("tokenize", "cache", "queue", "forward")


async def exposition(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


def series(text: str) -> set[str]:
    """Names and labels of all samples."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


async def total(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    found = samples(await exposition(client), f"agentprm_{name}")
    assert found, name
    return sum(value for has, value in found if labels.items() <= has.items())


class NaNEngine(GatedEngine):
    """Its warm-up is well; then one score of each sequence is NaN."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        scored = super().score(token_ids, reads)
        return scored if len(self.calls) == 1 else [SequenceScores([*raw[:-1], math.nan], new) for raw, new in scored]


async def ask_and_leave(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    """A request whose client leaves while its forward runs."""
    body = json.dumps({"items": [item("leaves")]}).encode()
    entered = asyncio.Event()
    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Message:
        if (message := next(messages, None)) is not None:
            return message
        await entered.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there")

    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    scope: Scope = {
        "type": "http", "method": "POST", "path": "/score_step", "raw_path": b"/score_step", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "client": ("here", 1), "server": ("echo", 80),
        "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    async with engine.held():
        leaving: asyncio.Task[None] = asyncio.create_task(transport.app(scope, receive, send))  # type: ignore[arg-type]
        await engine.entered()
        entered.set()
        await leaving


async def ask_all_kinds(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    """Requests that end in every way that there is without a broken part."""
    body = {"items": [item("Craft.", "look", "go")]}
    for route in ("/score_step", "/score_trajectory"):
        assert (await client.post(route, json=body)).status_code == 200
    assert (await client.post("/rank_actions", json={"items": [proposal("a", "b")]})).status_code == 200
    wrong: list[tuple[str, Any, int]] = [
        ("/score_step", {"items": []}, 422),
        ("/score_step", {**body, "model": "nobody"}, 404),
        ("/score_step", {"items": [item("t" * 3000)]}, 413),
        ("/made/up", body, 404),
        ("/models", body, 405),
    ]
    for route, content, status in wrong:
        assert (await client.post(route, json=content)).status_code == status
    await ask_and_leave(client, engine)
    async with engine.held():
        headers = {"x-deadline-ms": "5000"}
        late = asyncio.create_task(client.post("/score_step", json={"items": [item("late")]}, headers=headers))
        await engine.entered()
        pass_time(5.0)
        assert (await late).status_code == 504


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


def test_every_answered_score_is_in_the_histograms_of_promise_and_progress() -> None:
    async def scenario() -> None:
        body = {"items": [item("Craft.", "look", "go"), item("Craft.", "look", "wait", "stay")]}
        async with serving() as client:
            step = (await client.post("/score_step", json=body)).json()["results"]
            trajectory = (await client.post("/score_trajectory", json=body)).json()["results"]
            ranked = (await client.post("/rank_actions", json={"items": [proposal("a", "b", "a")]})).json()["results"]
            every = step + [one for result in trajectory for one in result["steps"]] + ranked[0]["ranking"]
            assert len(every) == 2 + 5 + 3
            assert await total(client, "promise_count", model="echo@1") == len(every)
            answered = sum(one["promise"] for one in every)
            assert await total(client, "promise_sum", model="echo@1") == pytest.approx(answered)
            progress = [one["progress"] for one in every if one["progress"] is not None]
            assert await total(client, "progress_count", model="echo@1") == len(progress) == len(every) - 2
            risen = await total(client, "progress_bucket", le="0.0")
            assert risen == sum(change <= 0 for change in progress)

    asyncio.run(scenario())


@given(values=st.lists(st.one_of(st.floats(-2, 2), st.sampled_from([*PROMISE, *PROGRESS]))))
@pytest.mark.parametrize("bounds", [PROMISE, PROGRESS], ids=["promise", "progress"])
def test_a_distribution_tells_what_the_librarys_histogram_would(bounds: Sequence[float], values: list[float]) -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("x", "Text.", ["model"], buckets=bounds, registry=theirs).labels("m")
    distribution = Distribution("x", "Text.", bounds)
    ours.register(distribution)
    distribution.add_model("m")
    for value in values:
        histogram.observe(value)
    distribution.observe("m", values[:3])
    distribution.observe("m", values[3:])
    expected, found = (samples(generate_latest(one).decode(), r"x\w+") for one in (theirs, ours))
    assert [labels for labels, _ in found] == [labels for labels, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_the_stages_of_the_histogram_sum_to_those_of_server_timing() -> None:
    async def scenario() -> None:
        told = dict.fromkeys(STAGES, 0.0)
        async with serving() as client:
            for _ in range(5):
                reply = await client.post("/rank_actions", json={"items": [proposal("a", "b")]})
                for stage, milliseconds in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"]):
                    told[stage] += float(milliseconds) / 1000
            for stage in STAGES:
                assert await total(client, "stage_duration_seconds_count", model="echo@1", stage=stage) == 5
                seconds = await total(client, "stage_duration_seconds_sum", model="echo@1", stage=stage)
                assert seconds == pytest.approx(told[stage], abs=5 * 0.5e-6 + 1e-12), "rounded to a microsecond each"

    asyncio.run(scenario())


def test_a_score_that_is_nan_is_counted_and_not_answered() -> None:
    async def scenario() -> None:
        async with serving(NaNEngine()) as client:
            reply = await client.post("/score_trajectory", json={"items": [item("Craft.", "look", "go")]})
            assert reply.status_code == 500
            assert await metric(client, 'agentprm_invalid_scores_total{model="echo@1"}') == 1
            assert await total(client, "promise_count") == 0

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
    ((build, one),) = samples(text, "agentprm_build_info")
    assert (build["version"], one) == (declared[1], 1)
    assert build["torch"].startswith("2.")


def test_a_request_that_ends_after_its_model_has_left_brings_no_series_back() -> None:
    metrics = Metrics(["/score_step"], ["/score_step"])
    before = series(metrics.exposition().decode())
    metrics.add_model("gone@1")
    metrics.process.show_model("gone@1", digest="0", device="cpu", dtype="float32")
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


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> type and labels, from the rows of the page."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:agentprm|process)_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def told() -> dict[str, tuple[str, set[str]]]:
    """The same from what a metrics object with every part connected tells."""
    metrics = Metrics(["/score_step"], ["/score_step"])
    metrics.add_model("m@1")
    metrics.process.show_model("m@1", digest="0", device="cpu", dtype="float32")
    metrics.process.watch_gpu_memory(lambda: {"cuda:0": {"allocated": 1, "reserved": 2, "total": 3}})
    found = {}
    for family in metrics._families.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[f"{family.name}_total" if family.type == "counter" else family.name] = (family.type, labels)
    return found


def test_every_metric_has_its_row_in_the_docs_and_every_row_its_metric() -> None:
    assert documented() == told()
