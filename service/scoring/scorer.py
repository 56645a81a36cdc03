"""One model's scores: render, look up, submit the misses, store, derive promise and progress."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from agentprm.errors import InvalidRequest, RequestError, TooLong
from agentprm.types import Conversation, Message, Overflow, State, Trajectory, Usage
from model_store.text.runs import Unrenderable
from service.queue.terms import Terms, within_deadline
from service.queue.texts import TextQueue
from service.score_cache.contract import ScoreCache
from service.score_cache.keys import Key
from service.scoring.costs import rendering_cost
from service.scoring.observer import ModelObserver
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
from service.scoring.source import ItemQuestions, Source, distinct

_NO_USAGE: Final = Usage(0, 0)
Rendering = Callable[[], ItemQuestions[Any]]
History = Trajectory | Conversation


class ItemRawScores(NamedTuple):
    """The raw scores of one item in the order of its questions' keys, and their usage. With an error it has none.

    ``apart`` are the places of those that were read in another cut than the one before.
    """

    raws: list[float]
    usage: Usage
    error: RequestError | None = None
    apart: frozenset[int] = frozenset()


class Scorer:
    """Scores trajectories and ranks actions with one model, whichever source computes its raw scores.

    Where a request's items may fail alone (``Terms.per_item``), an item can be the error that it has already, and the
    answer to an item can be an error.

    Args:
        source: renders items and computes what is not known.
        cache: scores by key, which models share.
        texts: gives requests their turns, in which they are rendered; models share it.
        promise: the checkpoint's map from raw scores into [0, 1].
        observer: receives a report of every answer.
    """

    def __init__(
        self,
        source: Source[Any],
        cache: ScoreCache,
        texts: TextQueue,
        *,
        promise: Promise,
        observer: ModelObserver,
    ) -> None:
        self.source = source
        self._cache = cache
        self._texts = texts
        self._promise = promise
        self._observer = observer

    async def score_steps(
        self, trajectories: Sequence[History | RequestError], terms: Terms, overflow: Sequence[Overflow] = ()
    ) -> Scores:
        """Scores the last step of each trajectory, with the step before it for its progress.

        ``overflow`` is that of each item; without it a history that is too long is an error.
        """
        scores = await self._score_trajectories(trajectories, terms, overflow, last=2)
        last = [item._replace(steps=item.steps[-1:]) for item in scores.items]
        return self._report(Scores(last, scores.timings))

    async def score_trajectories(
        self, trajectories: Sequence[History | RequestError], terms: Terms, overflow: Sequence[Overflow] = ()
    ) -> Scores:
        """Scores every step of each trajectory."""
        return self._report(await self._score_trajectories(trajectories, terms, overflow, last=None))

    async def rank(
        self,
        states: Sequence[State | Conversation | RequestError],
        candidates: Sequence[Sequence[str | Message]],
        terms: Terms,
        overflow: Sequence[Overflow] = (),
    ) -> Rankings:
        """Ranks the candidates of each state, best promise first. Those of an error are not looked at."""
        asked = list(zip(states, candidates, overflow or _no_cuts(states), strict=True))
        renderings = [
            state if isinstance(state, RequestError) else partial(self.source.candidates, state, proposed, how)
            for state, proposed, how in asked
        ]
        anew = self.source.renders_anew
        costs = [rendering_cost(state, proposed, how, anew=anew) for state, proposed, how in asked]
        items, timings = await self._score(renderings, costs, terms)
        rankings = [self._ranking(proposed, item) for proposed, item in zip(candidates, items, strict=True)]
        return self._report(Rankings(rankings, timings))

    async def _score_trajectories(
        self,
        trajectories: Sequence[History | RequestError],
        terms: Terms,
        overflow: Sequence[Overflow],
        *,
        last: int | None,
    ) -> Scores:
        asked = list(zip(trajectories, overflow or _no_cuts(trajectories), strict=True))
        renderings = [
            item if isinstance(item, RequestError) else partial(self.source.trajectory, item, last, how)
            for item, how in asked
        ]
        anew = self.source.renders_anew
        costs = [rendering_cost(item, (), how, anew=anew, scores=last) for item, how in asked]
        items, timings = await self._score(renderings, costs, terms)
        scored = [
            ItemScores(step_scores(item.raws, self._promise, item.apart), item.usage, item.error) for item in items
        ]
        return Scores(scored, timings)

    async def _score(
        self, renderings: Sequence[Rendering | RequestError], costs: Sequence[int], terms: Terms
    ) -> tuple[list[ItemRawScores], Timings]:
        """Renders items, looks up their scores, and has the source compute the missing ones as one request.

        Raises:
            NotReady: the source is not open.
            DeadlineExceeded: the deadline passes first.
            TooLong: an item has more tokens than the model reads.
            RequestError: too much text waits already, or computing fails.
        """
        self.source.refuse_unless_open()
        async with within_deadline(terms.deadline) as stages:
            render = _outcome if terms.per_item else _render
            named = [partial(render, index, rendering) for index, rendering in enumerate(renderings)]
            items = await self._texts.each(named, costs, terms)
            stages.enter("cache")
            questions = [question for item in items if isinstance(item, ItemQuestions) for question in item.questions]
            known = await self._cache.get(list({key: None for question in questions for key in question.keys}))
            stages.enter("queue")
            computed = await self.source.compute(questions, known, terms)
        self._cache.put(computed.scores)
        self._observer.on_cached(sum(usage.score_cache for usage in computed.usages))
        scores, usages = known | computed.scores, iter(computed.usages)
        timings = Timings(**stages.seconds, queue=computed.queue, forward=computed.forward)
        raws = [
            ItemRawScores([], _NO_USAGE, item)
            if isinstance(item, RequestError)
            else _item_raw_scores(index, item, scores, computed.failed, usages)
            for index, item in enumerate(items)
        ]
        return raws, timings

    def _ranking(self, candidates: Sequence[str | Message], item: ItemRawScores) -> ItemRanking:
        if item.error is not None:
            return ItemRanking([], item.usage, item.error)
        actions = distinct(candidates)
        before, of_actions = item.raws[: -len(actions)], item.raws[-len(actions) :]
        raws = dict(zip(actions, of_actions, strict=True))
        return ItemRanking(rank(candidates, raws, before[0] if before else None, self._promise), item.usage)

    def _report(self, answer: Answered) -> Answered:
        self._observer.on_answer(answer.all_scores, answer.timings)
        if codes := [item.error.code for item in answer.items if item.error is not None]:
            self._observer.on_item_errors(codes)
        return answer


def _no_cuts(items: Sequence[object]) -> list[Overflow]:
    return ["error"] * len(items)


def _outcome(index: int, rendering: Rendering | RequestError) -> ItemQuestions[Any] | RequestError:
    """Renders one item, or returns the error that it has."""
    try:
        return _render(index, rendering)
    except RequestError as error:
        return error


def _render(index: int, rendering: Rendering | RequestError) -> ItemQuestions[Any]:
    """Renders one item. An error names its position in the request."""
    if isinstance(rendering, RequestError):
        raise rendering
    try:
        return rendering()
    except TooLong as error:
        raise TooLong(error.message, details={"item": index, **error.details}) from error
    except Unrenderable as error:
        raise InvalidRequest(str(error), details={"item": index}) from error
    except RecursionError as error:
        raise InvalidRequest("the arguments of a tool call nest too deeply", details={"item": index}) from error


def _item_raw_scores(
    index: int,
    item: ItemQuestions[Any],
    scores: Mapping[Key, float],
    failed: Mapping[Key, RequestError],
    usages: Iterator[Usage],
) -> ItemRawScores:
    """Takes the usages of the item's questions off ``usages``, which has those of all items in order."""
    usage = sum(islice(usages, len(item.questions)), _NO_USAGE)
    if item.cut_tokens:
        usage += Usage(0, 0, dropped_steps=item.dropped_steps, cut_tokens=item.cut_tokens)
    keys: list[Key] = [key for question in item.questions for key in question.keys]
    for key in keys:
        if error := failed.get(key):
            return ItemRawScores([], usage, type(error)(error.message, details={"item": index, **error.details}))
    return ItemRawScores([scores[key] for key in keys], usage, apart=item.apart)
