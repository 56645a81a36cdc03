"""A judge's scores: look up, ask for what is not known, store it, derive promise and progress.

Every step is a call of its own: for its progress the step before is asked about too, unless its score is known.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from hashlib import blake2b
from typing import NamedTuple

from agentprm.types import State, StepScore, Trajectory, Usage
from service.generation.judge import Judgement, Prefix, RemoteJudge
from service.queue.calls import Answers, Calls
from service.queue.terms import Terms, within_deadline
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import Key, KeyChain, KeyScope
from service.scoring.results import (
    Answered,
    ItemRanking,
    ItemScores,
    Promise,
    Rankings,
    Scores,
    Timings,
    rank,
    step_scores,
)

Asked = tuple[Key, Prefix]
"""The key of a score, and the steps of which it judges the last."""


class _Raw(NamedTuple):
    """The raw scores of one item, in the order asked."""

    raws: list[float]
    usage: Usage


class JudgeScorer:
    """Scores trajectories and ranks actions with a judge.

    Args:
        thread: where keys are hashed.
        on_cached: hears how many tokens of a request were not generated for it because equal work was running.
        on_answer: hears the scores of an answer and where its time went.
    """

    def __init__(
        self,
        judge: RemoteJudge,
        scope: KeyScope,
        cache: ScoreCache,
        calls: Calls[Key, Prefix, Judgement],
        thread: Executor,
        *,
        promise: Promise,
        on_cached: Callable[[int], None] = lambda _: None,
        on_answer: Callable[[Sequence[StepScore], Timings], None] = lambda *_: None,
    ) -> None:
        self._judge = judge
        self._scope = scope
        self._cache = cache
        self._calls = calls
        self._thread = thread
        self._promise = promise
        self._on_cached = on_cached
        self._on_answer = on_answer

    @property
    def alive(self) -> bool:
        """A server that is down may come back."""
        return True

    def refuse_if_full(self) -> None:
        self._calls.refuse_if_full()

    async def start(self) -> None:
        await self._judge.check()
        self._calls.open()

    async def close(self) -> None:
        await self._calls.close()
        await self._judge.close()

    async def score_steps(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """The last step of each."""
        scores = await self._score_trajectories(trajectories, terms, steps=2)
        return self._record(Scores([ItemScores(steps[-1:], usage) for steps, usage in scores.items], scores.timings))

    async def score_trajectories(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """Every step of each."""
        return self._record(await self._score_trajectories(trajectories, terms, steps=0))

    async def rank(self, states: Sequence[State], candidates: Sequence[Sequence[str]], terms: Terms) -> Rankings:
        """The candidates of each state, best promise first."""
        distinct = [list(dict.fromkeys(proposed)) for proposed in candidates]
        items, timings = await self._score(
            lambda: [self._proposals(state, proposed) for state, proposed in zip(states, distinct, strict=True)], terms
        )
        rankings = []
        for proposed, actions, item in zip(candidates, distinct, items, strict=True):
            before, raws = item.raws[: -len(actions)], dict(zip(actions, item.raws[-len(actions) :], strict=True))
            ranking = rank(proposed, raws, before[0] if before else None, self._promise)
            rankings.append(ItemRanking(ranking, item.usage))
        return self._record(Rankings(rankings, timings))

    def _record(self, answer: Answered) -> Answered:
        self._on_answer(answer.every, answer.timings)
        return answer

    async def _score_trajectories(self, trajectories: Sequence[Trajectory], terms: Terms, *, steps: int) -> Scores:
        """Scores of the last ``steps`` steps of each; 0: of every one."""
        items, timings = await self._score(lambda: [self._steps(one, steps) for one in trajectories], terms)
        return Scores([ItemScores(step_scores(item.raws, self._promise), item.usage) for item in items], timings)

    async def _score(self, ask: Callable[[], list[list[Asked]]], terms: Terms) -> tuple[list[_Raw], Timings]:
        """What the score cache lacks of the items is asked for as one request."""
        self._calls.refuse_unless_open()
        async with within_deadline(terms.deadline) as stages:
            items = await asyncio.get_running_loop().run_in_executor(self._thread, ask)
            stages.enter("cache")
            asked = dict(one for item in items for one in item)
            known = await self._cache.get(list(asked))
            stages.enter("queue")
            missing = {key: prefix for key, prefix in asked.items() if key not in known}
            answers = await self._calls.submit(missing, terms) if missing else Answers[Key, Judgement]({}, set(), 0, 0)
        new = {key: judgement.raw for key, judgement in answers.results.items()}
        self._cache.put(new)
        found = list(_by_item(items, known | new, answers))
        self._on_cached(sum(item.usage.score_cache for item in found))
        return found, Timings(**stages.seconds, queue=answers.queue, forward=answers.forward)

    def _steps(self, trajectory: Trajectory, last: int) -> list[Asked]:
        chain = self._begin(trajectory.task)
        keys = [_extended(chain, step.observation, step.action).key for step in trajectory.steps]
        return [(keys[end - 1], Prefix(trajectory, end)) for end in range(1, len(keys) + 1)[-last:]]

    def _proposals(self, state: State, actions: Iterable[str]) -> list[Asked]:
        """The step before, if there is one, then each action."""
        past = Trajectory(state.task, state.steps)
        chain, asked = self._begin(state.task), []
        for step in state.steps:
            asked = [(_extended(chain, step.observation, step.action).key, Prefix(past, len(state.steps)))]
        for action in actions:
            key = _extended(chain.branch(), state.observation, action).key
            asked.append((key, Prefix(state.take(action), len(state.steps) + 1)))
        return asked

    def _begin(self, task: str) -> KeyChain:
        return self._scope.begin(_digest(task))


def _extended(chain: KeyChain, *segments: str) -> KeyChain:
    for segment in segments:
        chain.extend(_digest(segment))
    return chain


def _digest(text: str) -> bytes:
    """Of one length, so that no two rows of segments are the same bytes."""
    return blake2b(text.encode(), digest_size=32).digest()


def _by_item(
    items: Sequence[Sequence[Asked]], known: Mapping[Key, float], answers: Answers[Key, Judgement]
) -> Iterable[_Raw]:
    """Scores and usage: a judgement counts where it is first asked for, and one that was known costs no tokens."""
    counted: set[Key] = set()
    for item in items:
        usage = Usage(0, 0)
        for key, _ in item:
            if key in answers.results and key not in counted:
                tokens, shared = answers.results[key].tokens, key in answers.shared
                usage += Usage(tokens, 0 if shared else tokens, 0, tokens if shared else 0)
            counted.add(key)
        yield _Raw([known[key] for key, _ in item], usage)
