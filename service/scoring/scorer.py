"""One model's scores: render, look up, submit what is not known, store it, derive promise and progress."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from agentprm.types import State, StepScore, Trajectory, Usage
from service.queue.batcher import Batcher
from service.queue.terms import Terms, within_deadline
from service.queue.work import Answer
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import Key
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
from service.scoring.sequences import KeyedSequence, Sequencer, distinct

T = TypeVar("T")
MEASURED_AT_ONCE: Final = 4096
"""Tokens whose cost is estimated on the event loop: that takes some 0.1 ms, as going to another thread does."""
WARM_UP_TOKENS: Final = 16


class _Raw(NamedTuple):
    """The raw scores of the sequences of one item."""

    sequences: list[list[float]]
    usage: Usage


class Scorer:
    """Scores trajectories and ranks actions with one model.

    Args:
        on_cached: hears how many tokens of a request needed no forward because their scores were known.
        on_answer: hears the scores of an answer and where its time went.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        cache: ScoreCache,
        batcher: Batcher,
        tokenizer_thread: Executor,
        *,
        promise: Promise,
        on_cached: Callable[[int], None] = lambda _: None,
        on_answer: Callable[[Sequence[StepScore], Timings], None] = lambda *_: None,
    ) -> None:
        self._sequencer = sequencer
        self._cache = cache
        self._batcher = batcher
        self._tokenizer_thread = tokenizer_thread
        self._promise = promise
        self._on_cached = on_cached
        self._on_answer = on_answer

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    def refuse_if_full(self) -> None:
        self._batcher.refuse_if_full()

    async def start(self) -> None:
        """Begins to answer, and sends one forward through, so that the first caller does not pay for it."""
        self._batcher.start()
        await self._batcher.submit(self._batcher.measure([[0] * WARM_UP_TOKENS], [[WARM_UP_TOKENS - 1]], ["warm-up"]))

    async def close(self) -> None:
        await self._batcher.close()

    async def score_steps(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """The last step of each; the step before it is read in the same pass, so progress costs nothing."""
        scores = await self._score_trajectories(trajectories, terms, reads=2)
        return self._record(Scores([ItemScores(steps[-1:], usage) for steps, usage in scores.items], scores.timings))

    async def score_trajectories(self, trajectories: Sequence[Trajectory], terms: Terms) -> Scores:
        """Every step of each, in one pass."""
        return self._record(await self._score_trajectories(trajectories, terms, reads=None))

    async def rank(self, states: Sequence[State], candidates: Sequence[Sequence[str]], terms: Terms) -> Rankings:
        """The candidates of each state, best promise first."""
        items, timings = await self._score(lambda: self._sequencer.candidates(states, candidates), terms)
        rankings = [self._ranking(one, raw) for one, raw in zip(candidates, items, strict=True)]
        return self._record(Rankings(rankings, timings))

    def _record(self, answer: Answered) -> Answered:
        self._on_answer(answer.every, answer.timings)
        return answer

    async def _score_trajectories(
        self, trajectories: Sequence[Trajectory], terms: Terms, *, reads: int | None
    ) -> Scores:
        """Scores at the last ``reads`` steps of each; None: at every step."""
        items, timings = await self._score(lambda: self._sequencer.trajectories(trajectories, reads), terms)
        return Scores([ItemScores(step_scores(raw.sequences[0], self._promise), raw.usage) for raw in items], timings)

    async def _score(self, render: Callable[[], list[list[KeyedSequence]]], terms: Terms) -> tuple[list[_Raw], Timings]:
        """Renders items off the event loop; what the score cache lacks of them is scored as one request."""
        self._batcher.refuse_unless_open()
        async with within_deadline(terms.deadline) as stages:
            items = await self._off_the_loop(render)
            stages.enter("cache")
            sequences = [sequence for item in items for sequence in item]
            known = await self._cache.get(list({key: None for sequence in sequences for key in sequence.keys}))
            stages.enter("queue")
            missing = [sequence.without(known) for sequence in sequences]
            left = [one for one in missing if one]
            answer = await self._compute(left, terms)
        new = _scores(left, answer)
        self._cache.put(new)
        usages = _usages(sequences, missing, answer)
        self._on_cached(sum(usage.score_cache for usage in usages))
        timings = Timings(**stages.seconds, queue=answer.queue, forward=answer.forward)
        return _by_item(items, known | new, iter(usages)), timings

    async def _compute(self, sequences: Sequence[KeyedSequence], terms: Terms) -> Answer:
        if not sequences:
            return Answer([], [], [], 0.0, 0.0)
        token_ids, reads, keys = zip(*sequences, strict=True)
        measure = partial(self._batcher.measure, token_ids, reads, [tuple(one) for one in keys])
        few = sum(map(len, token_ids)) <= MEASURED_AT_ONCE
        work = measure() if few else await self._off_the_loop(measure)
        return await self._batcher.submit(work, caller=terms.caller, priority=terms.priority, deadline=terms.deadline)

    async def _off_the_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, call)

    def _ranking(self, candidates: Sequence[str], raw: _Raw) -> ItemRanking:
        *before, _ = raw.sequences[0]
        raws = {action: read[-1] for action, read in zip(distinct(candidates), raw.sequences, strict=True)}
        return ItemRanking(rank(candidates, raws, before[0] if before else None, self._promise), raw.usage)


def _scores(computed: Sequence[KeyedSequence], answer: Answer) -> dict[Key, float]:
    return {
        key: raw
        for sequence, scores in zip(computed, answer.raw, strict=True)
        for key, raw in zip(sequence.keys, scores, strict=True)
    }


def _usages(sequences: Sequence[KeyedSequence], missing: Sequence[KeyedSequence | None], answer: Answer) -> list[Usage]:
    """Where the score of each sequence came from: one that was computed for an equal one counts as known."""
    parts = zip(answer.reused, answer.shared, strict=True)
    usages = []
    for sequence, rest in zip(sequences, missing, strict=True):
        reused, shared = next(parts) if rest else (0, False)
        computed = len(rest.token_ids) - reused if rest else 0
        prefix_cache = 0 if shared else reused
        tokens = len(sequence.token_ids)
        usages.append(Usage(tokens, computed, prefix_cache, tokens - computed - prefix_cache))
    return usages


def _by_item(
    items: Sequence[Sequence[KeyedSequence]], known: Mapping[Key, float], usages: Iterator[Usage]
) -> list[_Raw]:
    """The scores and the summed usage of each item; ``usages`` are those of all sequences in order."""
    found = []
    for item in items:
        usage = sum(islice(usages, len(item)), Usage(0, 0))
        found.append(_Raw([[known[key] for key in sequence.keys] for sequence in item], usage))
    return found
