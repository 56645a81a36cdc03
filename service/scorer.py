"""One model's scores: render, submit, derive promise and progress."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import NamedTuple

from agentprm.errors import DeadlineExceeded, TooLong
from agentprm.types import State, StepScore, Trajectory, Usage
from model_store.render import Renderer
from service.batcher import Batcher, Work
from service.fair_queue import Priority


class Timings(NamedTuple):
    """Where the seconds of a request went."""

    tokenize: float
    queue: float
    forward: float


class ItemScores(NamedTuple):
    steps: list[StepScore]
    usage: Usage


class Scores(NamedTuple):
    items: list[ItemScores]
    timings: Timings


@dataclass(frozen=True, slots=True)
class RankedAction:
    """``index`` is the action's position among the candidates."""

    index: int
    score: StepScore


class ItemRanking(NamedTuple):
    """Best first."""

    ranking: list[RankedAction]
    usage: Usage


class Rankings(NamedTuple):
    items: list[ItemRanking]
    timings: Timings


class _Sequence(NamedTuple):
    """What the engine gets for one sequence: token ids, and the positions at which to read a score."""

    token_ids: list[int]
    reads: list[int]


class _Raw(NamedTuple):
    """What the engine gave for the sequences of one item."""

    sequences: list[list[float]]
    usage: Usage


class Terms(NamedTuple):
    """For whom a request is scored, how soon, and until when it is of use (loop time)."""

    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None


class Scorer:
    """Scores trajectories and ranks actions with one model. ``promise`` maps a raw score into [0, 1]."""

    def __init__(
        self,
        renderer: Renderer,
        batcher: Batcher,
        tokenizer_thread: Executor,
        *,
        promise: Callable[[float], float],
        context_length: int,
    ) -> None:
        self._renderer = renderer
        self._batcher = batcher
        self._tokenizer_thread = tokenizer_thread
        self._promise = promise
        self._context_length = context_length

    async def score_steps(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """The last step of each; the step before it is read in the same pass, so progress costs nothing."""
        scores = await self._score_trajectories(trajectories, terms, reads=2)
        return Scores([ItemScores(steps[-1:], usage) for steps, usage in scores.items], scores.timings)

    async def score_trajectories(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """Every step of each, in one pass."""
        return await self._score_trajectories(trajectories, terms, reads=None)

    async def rank(self, states: Sequence[State], candidates: Sequence[Sequence[str]], terms: Terms) -> Rankings:
        """The candidates of each state, best promise first.

        Where the activation saturates, equal promises are told apart by raw; equal raws keep the caller's order.
        """
        items, timings = await self._score(lambda: self._render_candidates(states, candidates), terms)
        rankings = [self._ranking(one, raw) for one, raw in zip(candidates, items, strict=True)]
        return Rankings(rankings, timings)

    async def _score_trajectories(
        self, trajectories: Sequence[Trajectory], terms: Terms, *, reads: int | None
    ) -> Scores:
        """Scores at the last ``reads`` steps of each; None: at every step."""
        items, timings = await self._score(lambda: self._render_trajectories(trajectories, reads), terms)
        return Scores([ItemScores(self._step_scores(raw.sequences[0]), raw.usage) for raw in items], timings)

    async def _score(self, render: Callable[[], list[list[_Sequence]]], terms: Terms) -> tuple[list[_Raw], Timings]:
        """Renders items off the event loop and scores their sequences as one request."""
        self._batcher.refuse_unless_open()
        async with _until(terms.deadline):
            started = perf_counter()
            items, work = await asyncio.get_running_loop().run_in_executor(
                self._tokenizer_thread, self._prepare, render
            )
            tokenize = perf_counter() - started
            answer = await self._batcher.submit(work, caller=terms.caller, priority=terms.priority)
        scored = zip(answer.raw, answer.reused, strict=True)
        return [_raw(item, scored) for item in items], Timings(tokenize, answer.queue, answer.forward)

    def _prepare(self, render: Callable[[], list[list[_Sequence]]]) -> tuple[list[list[_Sequence]], Work]:
        items = render()
        sequences = [sequence for item in items for sequence in item]
        return items, self._batcher.measure(
            [sequence.token_ids for sequence in sequences], [sequence.reads for sequence in sequences]
        )

    def _render_trajectories(self, trajectories: Sequence[Trajectory], reads: int | None) -> list[list[_Sequence]]:
        items = []
        for index, trajectory in enumerate(trajectories):
            token_ids, step_ends = self._renderer.trajectory(trajectory)
            self._refuse_too_long(token_ids, {"item": index})
            items.append([_Sequence(token_ids, step_ends if reads is None else step_ends[-reads:])])
        return items

    def _render_candidates(self, states: Sequence[State], candidates: Sequence[Sequence[str]]) -> list[list[_Sequence]]:
        """One sequence per distinct candidate; the first also reads the step before, which all of them share."""
        items = []
        for index, (state, proposed) in enumerate(zip(states, candidates, strict=True)):
            history = self._renderer.state(state)
            previous = history.step_ends[-1:]
            sequences: list[_Sequence] = []
            distinct = _distinct(proposed)
            for text, action in zip(distinct, self._renderer.actions(distinct), strict=True):
                token_ids = [*history.token_ids, *action]
                self._refuse_too_long(token_ids, {"item": index, "candidate": proposed.index(text)})
                sequences.append(_Sequence(token_ids, [*([] if sequences else previous), len(token_ids) - 1]))
            items.append(sequences)
        return items

    def _refuse_too_long(self, token_ids: Sequence[int], where: dict[str, int]) -> None:
        if len(token_ids) > self._context_length:
            raise TooLong(
                f"an item has {len(token_ids)} tokens, the model reads {self._context_length}",
                details={**where, "tokens": len(token_ids), "limit": self._context_length},
            )

    def _step_scores(self, raws: Sequence[float]) -> list[StepScore]:
        """Scores of consecutive steps; the first of them counts as without a predecessor."""
        scores: list[StepScore] = []
        for raw in raws:
            scores.append(self._step_score(raw, scores[-1].promise if scores else None))
        return scores

    def _step_score(self, raw: float, previous: float | None) -> StepScore:
        promise = self._promise(raw)
        return StepScore(promise, None if previous is None else promise - previous, raw)

    def _ranking(self, candidates: Sequence[str], raw: _Raw) -> ItemRanking:
        *before, _ = raw.sequences[0]
        previous = self._promise(before[0]) if before else None
        scores = {
            action: self._step_score(read[-1], previous)
            for action, read in zip(_distinct(candidates), raw.sequences, strict=True)
        }
        ranking = [RankedAction(index, scores[action]) for index, action in enumerate(candidates)]
        ranking.sort(key=lambda ranked: (-ranked.score.promise, -ranked.score.raw))
        return ItemRanking(ranking, raw.usage)


def _distinct(candidates: Sequence[str]) -> list[str]:
    """Equal candidates are scored once: that is cheaper, and rounding cannot tell them apart."""
    return list(dict.fromkeys(candidates))


def _raw(sequences: Sequence[_Sequence], scored: Iterator[tuple[list[float], int]]) -> _Raw:
    """The next scores are those of one item's sequences."""
    mine = list(islice(scored, len(sequences)))
    tokens = sum(len(sequence.token_ids) for sequence in sequences)
    reused = sum(reused for _, reused in mine)
    return _Raw([raw for raw, _ in mine], Usage(tokens=tokens, computed=tokens - reused, prefix_cache=reused))


@asynccontextmanager
async def _until(deadline: float | None) -> AsyncIterator[None]:
    """Cancels what runs inside at ``deadline`` (loop time)."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the scores were ready") from error
