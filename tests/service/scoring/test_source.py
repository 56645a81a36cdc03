"""The scorer and a source of its own: whatever computes raw scores, looking up, storing and ranking are the same."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pytest

from agentprm.errors import NotReady, Overloaded
from agentprm.types import Conversation, Message, Overflow, State, Step, StepScore, Trajectory, Usage
from model_store.text.conversations import action_text, as_state, as_trajectory
from service.metrics import Metrics
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.queue.texts import TextQueue
from service.score_cache.keys import Key
from service.score_cache.memory_tier import MemoryTier
from service.scoring.results import Timings
from service.scoring.scorer import Scorer
from service.scoring.source import Computed, ItemQuestions, distinct
from tests.service.null_observer import NullObserver

T = TypeVar("T")
TWO_STEPS = Trajectory("t", (Step("", "a"), Step("", "bb")))


class LengthQuestion(NamedTuple):
    text: str

    @property
    def keys(self) -> list[Key]:
        return [self.text.encode()]


class LengthSource:
    """The raw score of an action is its length, one token each."""

    alive = True
    renders_anew = False

    def __init__(self) -> None:
        self.computed: list[list[str]] = []
        self.callers: set[str] = set()
        self.refusal: Exception | None = None
        self.rendered = 0

    def trajectory(
        self, history: Trajectory | Conversation, last: int | None, overflow: Overflow = "error"
    ) -> ItemQuestions[LengthQuestion]:
        assert overflow == "error"
        self.rendered += 1
        trajectory = as_trajectory(history)
        first = 0 if last is None else -last
        return ItemQuestions([LengthQuestion(step.action) for step in trajectory.steps[first:]])

    def candidates(
        self, state: State | Conversation, candidates: Sequence[str | Message], overflow: Overflow = "error"
    ) -> ItemQuestions[LengthQuestion]:
        assert overflow == "error"
        texts = [*(step.action for step in as_state(state).steps[-1:]), *map(action_text, distinct(candidates))]
        return ItemQuestions(list(map(LengthQuestion, texts)))

    async def compute(self, questions: Sequence[LengthQuestion], known: Mapping[Key, float], terms: Terms) -> Computed:
        if self.refusal is not None:
            raise self.refusal
        self.callers.add(terms.caller)
        missing = [question for question in questions if question.keys[0] not in known]
        self.computed.append([question.text for question in missing])
        usages = [Usage(1, 1) if question in missing else Usage(1, 0, 0, 1) for question in questions]
        return Computed({question.keys[0]: len(question.text) / 10 for question in missing}, usages, 1.0, 2.0)

    def refuse_unless_open(self) -> None: ...

    def refuse_if_full(self, caller: str, priority: Priority) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Reports(NullObserver):
    def __init__(self) -> None:
        self.cached: list[int] = []
        self.answers: list[tuple[Sequence[StepScore], Timings]] = []

    def on_cached(self, tokens: int) -> None:
        self.cached.append(tokens)

    def on_answer(self, scores: Sequence[StepScore], timings: Timings) -> None:
        self.answers.append((scores, timings))


def scoring(source: LengthSource, observer: Reports, use: Callable[[Scorer], Awaitable[T]]) -> T:
    async def scenario() -> T:
        with ThreadPoolExecutor(1) as thread:
            cache = MemoryTier(100, Metrics().score_cache)
            return await use(Scorer(source, cache, TextQueue(thread), promise=lambda raw: raw, observer=observer))

    return asyncio.run(scenario())


def test_only_what_the_score_cache_lacks_is_computed_and_then_it_is_known() -> None:
    source, reports = LengthSource(), Reports()

    async def use(scorer: Scorer) -> None:
        (last,) = (await scorer.score_steps([TWO_STEPS], Terms("me"))).items
        assert last.steps == [StepScore(0.2, 0.1, 0.2)]
        assert last.usage == Usage(2, 2)
        grown = Trajectory("t", (*TWO_STEPS.steps, Step("", "ccc")))
        (every,) = (await scorer.score_trajectories([grown], Terms("me"))).items
        assert [step.raw for step in every.steps] == [0.1, 0.2, 0.3]
        assert every.usage == Usage(3, 1, 0, 2)

    scoring(source, reports, use)
    assert source.computed == [["a", "bb"], ["ccc"]]
    assert source.callers == {"me"}
    assert reports.cached == [0, 2]


def test_a_ranking_is_measured_from_the_step_before_and_keeps_repeated_candidates() -> None:
    state = State("t", TWO_STEPS.steps, "o")
    ranked = scoring(LengthSource(), Reports(), lambda scorer: scorer.rank([state], [["x", "yyyy", "x"]], Terms()))
    (item,) = ranked.items
    assert [(action.index, action.score.raw) for action in item.ranking] == [(1, 0.4), (0, 0.1), (2, 0.1)]
    assert [action.score.progress for action in item.ranking] == [pytest.approx(0.2), *2 * [pytest.approx(-0.1)]]


def test_the_observer_gets_each_answer_with_its_seconds() -> None:
    reports = Reports()
    scores = scoring(LengthSource(), reports, lambda scorer: scorer.score_steps([TWO_STEPS], Terms()))
    assert reports.answers == [(scores.all_scores, scores.timings)]
    assert (scores.timings.queue, scores.timings.forward) == (1.0, 2.0)


def test_a_request_that_is_refused_leaves_no_score_and_no_report() -> None:
    source, reports = LengthSource(), Reports()
    source.refusal = Overloaded("full")

    async def use(scorer: Scorer) -> None:
        with pytest.raises(Overloaded):
            await scorer.score_steps([TWO_STEPS], Terms())
        source.refusal = None
        await scorer.score_steps([TWO_STEPS], Terms())

    scoring(source, reports, use)
    assert source.computed == [["a", "bb"]]
    assert len(reports.answers) == 1


def test_a_source_that_is_not_open_refuses_before_anything_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: LengthSource) -> None:
        raise NotReady("closed")

    monkeypatch.setattr(LengthSource, "refuse_unless_open", refuse)
    source = LengthSource()
    with pytest.raises(NotReady):
        scoring(source, Reports(), lambda scorer: scorer.score_steps([TWO_STEPS], Terms()))
    assert source.rendered == 0
