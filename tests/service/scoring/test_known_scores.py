"""Scores that are known are not computed again, and nobody can tell a known score from a computed one."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from random import Random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.types import State, Step, Trajectory
from service.engine.contract import SequenceScores
from service.queue.terms import Terms
from service.scoring.scorer import Scorer
from tests.service.echo_app import GatedEngine, item, loaded, metric, proposal, serving
from tests.service.http.routes.test_under_load import queued_tokens
from tests.service.scoring.test_scorer import scoring, trajectories

STEPS = (Step("", "look"), Step("a table", "go north"), Step("a wall", "go back"))


def grown(*, until: int) -> Trajectory:
    return Trajectory("Find the key.", STEPS[:until])


def computed(engine: GatedEngine) -> int:
    return sum(map(len, engine.calls))


@given(
    asked=st.lists(st.lists(trajectories, min_size=1, max_size=3), min_size=1, max_size=3),
    items=st.sampled_from([1, 3, 1000]),
)
@settings(max_examples=30, deadline=None)
def test_a_known_score_is_the_computed_one(asked: list[list[Trajectory]], items: int) -> None:
    calls = [*asked, *asked]

    async def use(scorer: Scorer) -> list[list[object]]:
        found: list[list[object]] = []
        for batch in calls:
            found.append([item.steps for item in (await scorer.score_trajectories(batch, Terms())).items])
            found.append([item.steps for item in (await scorer.score_steps(batch, Terms())).items])
        return found

    assert scoring(use, cache_items=items) == scoring(use, cache_items=0)


def test_a_trajectory_that_grew_by_a_step_costs_one_score() -> None:
    engine = GatedEngine()

    async def use(scorer: Scorer) -> None:
        for until in (1, 2, 3):
            (scores,) = (await scorer.score_trajectories([grown(until=until)], Terms())).items
            assert len(scores.steps) == until
        (whole,) = (await scorer.score_trajectories([grown(until=3)], Terms())).items
        assert whole.usage.score_cache == whole.usage.tokens
        assert whole.usage.computed == whole.usage.prefix_cache == 0

    scoring(use, engine, cache_items=100)
    assert [len(call) for call in engine.calls] == [1, 1, 1]


def test_a_shorter_one_of_a_known_trajectory_is_known() -> None:
    engine = GatedEngine()

    async def use(scorer: Scorer) -> None:
        (whole,) = (await scorer.score_trajectories([grown(until=3)], Terms())).items
        for until in (1, 2, 3):
            (last,) = (await scorer.score_steps([grown(until=until)], Terms())).items
            assert last.steps == [whole.steps[until - 1]]

    scoring(use, engine, cache_items=100)
    assert computed(engine) == 1


@pytest.mark.parametrize("known", [(), (1,), (2,), (1, 2), (3,), (2, 3)])
def test_progress_is_right_whatever_is_known_of_the_step_before(known: Iterable[int]) -> None:
    async def use(scorer: Scorer) -> object:
        for until in known:
            await scorer.score_steps([grown(until=until)], Terms())
        (last,) = (await scorer.score_steps([grown(until=3)], Terms())).items
        state = State("Find the key.", STEPS[:2], STEPS[2].observation)
        (ranked,) = (await scorer.rank([state], [["wait", STEPS[2].action, "wait"]], Terms())).items
        assert {action.index: action.score for action in ranked.ranking}[1] == last.steps[0]
        return last.steps, ranked.ranking

    # With two places the score of the step before is often the one that was dropped.
    assert scoring(use, cache_items=1000) == scoring(use, cache_items=2) == scoring(use, cache_items=0)


def test_a_ranking_makes_its_candidates_and_the_step_before_known() -> None:
    engine = GatedEngine()

    async def use(scorer: Scorer) -> None:
        state = State("Find the key.", STEPS[:1], STEPS[1].observation)
        first = (await scorer.rank([state], [["go north", "wait"]], Terms())).items[0]
        again = (await scorer.rank([state], [["wait", "go north"]], Terms())).items[0]
        assert {action.score for action in again.ranking} == {action.score for action in first.ranking}
        assert again.usage.score_cache == again.usage.tokens

    scoring(use, engine, cache_items=100)
    assert computed(engine) == 2


def test_over_http_a_repeated_ranking_computes_nothing_and_says_so() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, score_cache_items=100) as client:
            body = {"items": [proposal("go", "wait", "go")]}
            first, again = [(await client.post("/rank_actions", json=body)).json()["results"][0] for _ in range(2)]
            assert first["ranking"] == again["ranking"]
            assert first["usage"]["score_cache"] == 0
            assert again["usage"] == {**first["usage"], "computed": 0, "score_cache": first["usage"]["tokens"]}
            saved = 'agentprm_tokens_total{model="echo@1",source="score_cache"}'
            assert await metric(client, saved) == first["usage"]["tokens"]
            assert await metric(client, "agentprm_score_cache_items") == 3  # two candidates and the step before
        assert len(engine.calls) == 2, "the warm-up and the first"

    asyncio.run(scenario())


def test_progress_is_right_while_the_step_before_is_still_in_flight() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, score_cache_items=100) as client:

            def ask(*actions: str) -> asyncio.Task[httpx.Response]:
                return asyncio.create_task(client.post("/score_step", json={"items": [item("t", *actions)]}))

            async with engine.held():
                before = ask("look")
                await engine.entered()
                after = ask("look", "go")
                await queued_tokens(client, at_least=1)
            first, second = [(await reply).json()["results"][0] for reply in (before, after)]
            assert second["progress"] == second["promise"] - first["promise"]

    asyncio.run(scenario())


def test_two_models_do_not_share_scores() -> None:
    async def scenario() -> None:
        from_one, from_other = GatedEngine(), GatedEngine()
        async with serving(loaded(from_one, "one"), loaded(from_other, "other"), score_cache_items=100) as client:
            for name in ("one", "other", "one"):
                await client.post("/score_step", json={"model": name, "items": [item()]})
        assert (len(from_one.calls), len(from_other.calls)) == (2, 2)

    asyncio.run(scenario())


def test_a_score_that_is_not_finite_is_answered_with_an_error_and_not_kept() -> None:
    class Sick(GatedEngine):
        def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
            scored = super().score(token_ids, reads)
            return (
                scored if len(self.calls) != 2 else [SequenceScores([math.nan] * len(raw), new) for raw, new in scored]
            )

    async def scenario() -> None:
        async with serving(Sick(), score_cache_items=100) as client:
            statuses = [(await client.post("/score_step", json={"items": [item()]})).status_code for _ in range(2)]
            assert statuses == [500, 200]

    asyncio.run(scenario())


def test_keys_of_random_trajectories_never_meet() -> None:
    rng = Random(0)
    seen = set()
    for _ in range(500):
        steps = tuple(Step(rng.choice("ab"), rng.choice("ab")) for _ in range(rng.randrange(1, 9)))
        seen.add(Trajectory(rng.choice("ab"), steps))

    async def use(scorer: Scorer) -> set[str]:
        found: set[str] = set()
        for trajectory in seen:
            (sequence,) = scorer.source.trajectory(trajectory, None).questions
            found |= {key.decode() for key in sequence.keys}
        return found

    prefixes = {(each.task, each.steps[:end]) for each in seen for end in range(1, len(each.steps) + 1)}
    assert len(scoring(use)) == len(prefixes)
