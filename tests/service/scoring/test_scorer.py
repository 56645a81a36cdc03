import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import DeadlineExceeded, TooLong
from agentprm.types import State, Step, Trajectory
from model_store.text.renderer import Renderer
from service.metrics import Metrics
from service.queue.batcher import Batcher
from service.queue.terms import Terms
from service.queue.texts import TextQueue
from service.score_cache.keys import KeyScope
from service.score_cache.memory_tier import MemoryTier
from service.scoring.scorer import Scorer
from service.scoring.sequences import TextSequencer
from service.scoring.token_source import TokenSource
from tests.model_store.text.test_renderer import RENDERERS
from tests.service.echo_app import MANIFEST, PATIENCE, GatedEngine, PrefixEchoEngine, byte_renderer, pass_time
from tests.service.null_observer import NullObserver

T = TypeVar("T")


def scoring(
    use: Callable[[Scorer], Awaitable[T]],
    engine: GatedEngine | None = None,
    *,
    context_length: int = 2000,
    max_queue_tokens: int = 10**6,
    cache_items: int = 0,
    renderer: Renderer | None = None,
) -> T:
    async def scenario() -> T:
        with ThreadPoolExecutor(1) as engine_thread, ThreadPoolExecutor(1) as tokenizer_thread:
            batcher = Batcher(
                engine or GatedEngine(),
                engine_thread,
                max_batch_tokens=500,
                max_queue_tokens=max_queue_tokens,
                observer=NullObserver(),
            )
            batcher.start()
            scope = KeyScope("test", "0", 1, "float32")
            sequencer = TextSequencer(renderer or byte_renderer(), scope, context_length=context_length)
            cache = MemoryTier(cache_items, Metrics().score_cache)
            texts = TextQueue(tokenizer_thread)
            source = TokenSource(sequencer, batcher, texts)
            promise = MANIFEST.score.promise
            scorer = Scorer(source, cache, texts, promise=promise, observer=NullObserver())
            try:
                return await use(scorer)
            finally:
                await batcher.close()

    return asyncio.run(scenario())


texts = st.text(st.characters(codec="utf-8"), max_size=20)
actions = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
steps = st.lists(st.builds(Step, texts, actions), max_size=5).map(tuple)
trajectories = st.builds(
    Trajectory, texts, st.lists(st.builds(Step, texts, actions), min_size=1, max_size=5).map(tuple)
)
states = st.builds(State, texts, steps, texts)


@given(trajectory=trajectories)
@settings(max_examples=30, deadline=None)
def test_every_step_of_a_trajectory_scores_as_the_last_step_of_its_prefix(trajectory: Trajectory) -> None:
    prefixes = [Trajectory(trajectory.task, trajectory.steps[:end]) for end in range(1, len(trajectory.steps) + 1)]

    async def use(scorer: Scorer) -> None:
        whole = (await scorer.score_trajectories([trajectory], Terms())).items[0]
        last = (await scorer.score_steps(prefixes, Terms())).items
        assert whole.steps == [item.steps[0] for item in last]

    scoring(use)


@given(trajectory=trajectories)
@settings(max_examples=30, deadline=None)
def test_progress_is_the_first_difference_of_promise(trajectory: Trajectory) -> None:
    scores = scoring(lambda scorer: scorer.score_trajectories([trajectory], Terms())).items[0].steps
    assert scores[0].progress is None
    for before, after in pairwise(scores):
        assert after.progress == after.promise - before.promise
    assert all(score.promise == MANIFEST.score.promise(score.raw) for score in scores)


@given(state=states, candidates=st.lists(actions, min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_candidate_scores_alone_as_among_others_and_as_the_step_it_would_be(
    state: State, candidates: list[str]
) -> None:
    async def use(scorer: Scorer) -> None:
        together = (await scorer.rank([state], [candidates], Terms())).items[0].ranking
        alone = (await scorer.rank([state] * len(candidates), [[action] for action in candidates], Terms())).items
        taken = (await scorer.score_steps([state.take(action) for action in candidates], Terms())).items
        assert sorted(action.index for action in together) == list(range(len(candidates)))
        for action in together:
            assert action.score == alone[action.index].ranking[0].score == taken[action.index].steps[0]

    scoring(use)


@given(state=states, candidates=st.lists(st.sampled_from(["ab", "ba", "c", "look"]), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_best_promise_comes_first_and_ties_keep_the_callers_order(state: State, candidates: list[str]) -> None:
    # The echo engine sums ids: "ab" and "ba" are different texts with one score.
    ranking = scoring(lambda scorer: scorer.rank([state], [candidates], Terms())).items[0].ranking
    assert [(-action.score.raw, action.index) for action in ranking] == sorted(
        (-action.score.raw, action.index) for action in ranking
    )


def test_equal_candidates_are_computed_once() -> None:
    engine = GatedEngine()
    scoring(lambda scorer: scorer.rank([State("t")], [["a", "b", "a"]], Terms()), engine)
    assert [len(call) for call in engine.calls] == [2]


def test_usage_counts_the_tokens_that_went_through_the_model() -> None:
    engine = GatedEngine()
    two = [Trajectory("t", (Step("", "a"),)), Trajectory("longer", (Step("", "a"), Step("o", "b")))]
    scores = scoring(lambda scorer: scorer.score_steps(two, Terms()), engine)
    assert [item.usage.tokens for item in scores.items] == [len(ids) for call in engine.calls for ids in call]
    assert [item.usage.computed for item in scores.items] == [item.usage.tokens for item in scores.items]


def test_usage_tells_what_was_computed_from_what_was_reused() -> None:
    engine = PrefixEchoEngine(10**6)
    step, longer = Trajectory("t", (Step("", "a"),)), Trajectory("t", (Step("", "a"), Step("o", "b")))

    async def use(scorer: Scorer) -> None:
        (first,) = (await scorer.score_steps([step], Terms())).items
        assert (first.usage.computed, first.usage.prefix_cache) == (first.usage.tokens, 0)
        (grown,) = (await scorer.score_steps([longer], Terms())).items
        assert grown.usage.prefix_cache == first.usage.tokens
        (ranked,) = (await scorer.rank([State("t", step.steps, "o")], [["b", "c", "dd"]], Terms())).items
        assert ranked.usage.computed == len("c") + len("dd") + 2  # each with its boundary
        assert ranked.usage.tokens == ranked.usage.computed + ranked.usage.prefix_cache == 3 * grown.usage.tokens + 1

    scoring(use, engine)


def test_usage_counts_the_tokens_of_unknown_text_whether_or_not_their_scores_are_known() -> None:
    trajectory = Trajectory("get gold", (Step("", "get oak_log"),))

    async def use(scorer: Scorer) -> None:
        for _ in range(2):
            (scored,) = (await scorer.score_steps([trajectory], Terms())).items
            assert scored.usage.unknown == 1
        (ranked,) = (await scorer.rank([State("get gold")], [["get oak_log", "smelt iron"]], Terms())).items
        assert ranked.usage.unknown == 4

    scoring(use, cache_items=10, renderer=RENDERERS["word level"])


def test_long_and_short_items_have_the_scores_they_have_alone() -> None:
    steps = tuple(Step(f"saw {index}", "look around " * 20) for index in range(30))
    whole = [Trajectory("t", steps[:end]) for end in (1, 30, 2, 15)]

    async def use(scorer: Scorer) -> None:
        together = await scorer.score_trajectories(whole, Terms())
        alone = [(await scorer.score_trajectories([each], Terms())).items[0] for each in whole]
        assert [item.steps for item in together.items] == [item.steps for item in alone]

    scoring(use, context_length=20_000)


def test_many_candidates_over_a_history_fit_the_queue_only_because_they_share_it() -> None:
    history = State("t" * 200)
    candidates = [f"go {index}" for index in range(64)]

    async def use(scorer: Scorer) -> None:
        (ranked,) = (await scorer.rank([history], [candidates], Terms())).items
        assert ranked.usage.tokens > 64 * 200
        assert len(ranked.ranking) == 64
        with pytest.raises(TooLong):  # the same without a history in common
            await scorer.rank(
                [State(f"{index}" * 200) for index in range(64)], [[action] for action in candidates], Terms()
            )

    scoring(use, PrefixEchoEngine(10**6), max_queue_tokens=1000)


def test_an_item_over_the_context_length_is_refused_before_a_forward() -> None:
    engine = GatedEngine()
    short, long = Trajectory("t", (Step("", "a"),)), Trajectory("t", (Step("", "a" * 50),))
    with pytest.raises(TooLong) as refused:
        scoring(lambda scorer: scorer.score_trajectories([short, long], Terms()), engine, context_length=40)
    assert refused.value.details == {"item": 1, "tokens": 58, "limit": 40}
    with pytest.raises(TooLong) as refused:
        scoring(lambda scorer: scorer.rank([State("t")], [["a", "a", "a" * 50]], Terms()), engine, context_length=40)
    assert refused.value.details == {"item": 0, "candidate": 2, "tokens": 58, "limit": 40}
    assert engine.calls == []


def test_an_item_of_exactly_the_context_length_is_scored() -> None:
    trajectory = Trajectory("t", (Step("", "a" * 50),))
    assert scoring(lambda scorer: scorer.score_steps([trajectory], Terms()), context_length=58).items


def test_a_deadline_in_the_past_is_answered_without_a_forward() -> None:
    engine = GatedEngine()
    with pytest.raises(DeadlineExceeded) as late:
        scoring(lambda scorer: scorer.score_steps([Trajectory("t", (Step("", "a"),))], Terms(deadline=0.0)), engine)
    assert late.value.details == {"stage": "tokenize"}
    assert engine.calls == []


def test_a_deadline_is_kept_while_the_forward_still_runs() -> None:
    engine = GatedEngine()

    async def use(scorer: Scorer) -> None:
        async with engine.held():
            terms = Terms(deadline=asyncio.get_running_loop().time() + 5.0)
            asked = asyncio.create_task(scorer.score_steps([Trajectory("t", (Step("", "a"),))], terms))
            await engine.entered()
            pass_time(5.0)
            with pytest.raises(DeadlineExceeded) as late:
                await asked
            assert late.value.details == {"stage": "queue"}

    scoring(use, engine)


def test_a_deadline_that_passes_while_the_score_cache_is_asked_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def never(*_: object) -> dict[bytes, float]:
        asked.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def use(scorer: Scorer) -> None:
        terms = Terms(deadline=asyncio.get_running_loop().time() + 5.0)
        asking = asyncio.create_task(scorer.score_steps([Trajectory("t", (Step("", "a"),))], terms))
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        pass_time(5.0)
        with pytest.raises(DeadlineExceeded) as late:
            await asking
        assert late.value.details == {"stage": "cache"}

    monkeypatch.setattr(MemoryTier, "get", never)
    scoring(use)
