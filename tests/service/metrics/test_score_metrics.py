"""The answered scores, and where their time went."""

import asyncio
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Histogram, generate_latest

from service.metrics.buckets import PROGRESS, PROMISE
from service.metrics.families import Distribution, Registry
from tests.service.echo_app import item, metric, proposal, serving
from tests.service.metrics.asking import NaNEngine, total
from tests.service.score_cache.caching import samples

STAGES = ("tokenize", "cache", "queue", "forward")


def test_every_answered_score_is_in_the_histograms_of_promise_and_progress() -> None:
    async def scenario() -> None:
        body = {"items": [item("Craft.", "look", "go"), item("Craft.", "look", "wait", "stay")]}
        async with serving() as client:
            step = (await client.post("/score_step", json=body)).json()["results"]
            trajectory = (await client.post("/score_trajectory", json=body)).json()["results"]
            ranked = (await client.post("/rank_actions", json={"items": [proposal("a", "b", "a")]})).json()["results"]
            every = step + [score for result in trajectory for score in result["steps"]] + ranked[0]["ranking"]
            assert len(every) == 2 + 5 + 3
            assert await total(client, "promise_count", model="echo@1") == len(every)
            answered = sum(score["promise"] for score in every)
            assert await total(client, "promise_sum", model="echo@1") == pytest.approx(answered)
            progress = [score["progress"] for score in every if score["progress"] is not None]
            assert await total(client, "progress_count", model="echo@1") == len(progress) == len(every) - 2
            risen = await total(client, "progress_bucket", le="0.0")
            assert risen == sum(change <= 0 for change in progress)

    asyncio.run(scenario())


@given(values=st.lists(st.one_of(st.floats(-2, 2), st.sampled_from([*PROMISE, *PROGRESS]))))
@pytest.mark.parametrize("bounds", [PROMISE, PROGRESS], ids=["promise", "progress"])
def test_a_distribution_tells_what_the_librarys_histogram_would(bounds: Sequence[float], values: list[float]) -> None:
    theirs, ours = Registry(), Registry()
    histogram = Histogram("x", "Text.", ["model"], buckets=bounds, registry=theirs).labels("m")
    distribution = Distribution("x", "Text.", bounds)
    ours.register(distribution)
    distribution.add_model("m")
    for value in values:
        histogram.observe(value)
    distribution.observe("m", values[:3])
    distribution.observe("m", values[3:])
    expected, found = (samples(generate_latest(registry).decode(), r"x\w+") for registry in (theirs, ours))
    assert [labels for labels, _ in found] == [labels for labels, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_the_stages_of_the_histogram_sum_to_those_of_server_timing() -> None:
    async def scenario() -> None:
        announced = dict.fromkeys(STAGES, 0.0)
        async with serving() as client:
            for _ in range(5):
                reply = await client.post("/rank_actions", json={"items": [proposal("a", "b")]})
                for stage, milliseconds in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["server-timing"]):
                    announced[stage] += float(milliseconds) / 1000
            for stage in STAGES:
                assert await total(client, "stage_duration_seconds_count", model="echo@1", stage=stage) == 5
                seconds = await total(client, "stage_duration_seconds_sum", model="echo@1", stage=stage)
                assert seconds == pytest.approx(announced[stage], abs=5 * 0.5e-6 + 1e-12), (
                    "rounded to a microsecond each"
                )

    asyncio.run(scenario())


def test_a_score_that_is_nan_is_counted_and_not_answered() -> None:
    async def scenario() -> None:
        async with serving(NaNEngine()) as client:
            reply = await client.post("/score_trajectory", json={"items": [item("Craft.", "look", "go")]})
            assert reply.status_code == 500
            assert await metric(client, 'agentprm_invalid_scores_total{model="echo@1"}') == 1
            assert await total(client, "promise_count") == 0

    asyncio.run(scenario())
