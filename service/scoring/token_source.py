"""Scores by a model in this service: token sequences through the batcher. Knows no score cache."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from agentprm.types import State, Trajectory, Usage
from service.queue.batcher import Batcher
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.queue.work import Answer, Work
from service.score_cache.keys import Key
from service.scoring.sequences import KeyedSequence, Sequencer
from service.scoring.source import Computed

MAX_TOKENS_ON_EVENT_LOOP: Final = 4096
"""Most tokens whose cost is estimated on the event loop. That takes 0.1 ms, as long as the switch to another thread."""
WARM_UP_TOKENS: Final = 16
_NOTHING: Final = Answer([], [], [], 0.0, 0.0)


class TokenSource:
    """A model on a device of this machine. Implements ``Source``.

    Args:
        sequencer: renders items to token ids, read positions and keys.
        batcher: the queue of the model's engine.
        tokenizer_thread: estimates the cost of long requests.
    """

    def __init__(self, sequencer: Sequencer, batcher: Batcher, tokenizer_thread: Executor) -> None:
        self._sequencer = sequencer
        self._batcher = batcher
        self._tokenizer_thread = tokenizer_thread

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    def refuse_unless_open(self) -> None:
        self._batcher.refuse_unless_open()

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        self._batcher.refuse_if_full(caller, priority)

    async def start(self) -> None:
        """Starts the batcher and sends one forward through, so that the first caller does not pay for it."""
        self._batcher.start()
        warm_up = self._batcher.prepare([[0] * WARM_UP_TOKENS], [[WARM_UP_TOKENS - 1]], ["warm-up"])
        await self._batcher.submit(warm_up, Terms())

    async def close(self) -> None:
        await self._batcher.close()

    def trajectories(self, trajectories: Sequence[Trajectory], last: int | None) -> list[list[KeyedSequence]]:
        """One sequence per item, read at several step ends: all of its scores come out of one pass."""
        return self._sequencer.trajectories(trajectories, last)

    def candidates(self, states: Sequence[State], candidates: Sequence[Sequence[str]]) -> list[list[KeyedSequence]]:
        """One sequence per distinct candidate; the first one also reads the step before."""
        return self._sequencer.candidates(states, candidates)

    async def compute(self, questions: Sequence[KeyedSequence], known: Mapping[Key, float], terms: Terms) -> Computed:
        """Submits the sequences with unknown scores as one request to the batcher."""
        missing = [sequence.without(known) for sequence in questions]
        submitted = [sequence for sequence in missing if sequence]
        answer = await self._batcher.submit(await self._prepare(submitted), terms) if submitted else _NOTHING
        return Computed(_scores(submitted, answer), _usages(questions, missing, answer), answer.queue, answer.forward)

    async def _prepare(self, sequences: Sequence[KeyedSequence]) -> Work:
        """Estimates what the sequences cost, off the event loop if they are long."""
        token_ids, reads, keys = zip(*sequences, strict=True)
        prepare = partial(self._batcher.prepare, token_ids, reads, list(map(tuple, keys)))
        if sum(map(len, token_ids)) <= MAX_TOKENS_ON_EVENT_LOOP:
            return prepare()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer_thread, prepare)


def _scores(submitted: Sequence[KeyedSequence], answer: Answer) -> dict[Key, float]:
    return {
        key: raw
        for sequence, raws in zip(submitted, answer.raw, strict=True)
        for key, raw in zip(sequence.keys, raws, strict=True)
    }


def _usages(questions: Sequence[KeyedSequence], missing: Sequence[KeyedSequence | None], answer: Answer) -> list[Usage]:
    """Splits each sequence's tokens by origin. Tokens computed for another request's equal sequence count as known."""
    parts = zip(answer.reused, answer.shared, strict=True)
    usages = []
    for sequence, rest in zip(questions, missing, strict=True):
        reused, shared = next(parts) if rest else (0, False)
        computed = len(rest.token_ids) - reused if rest else 0
        prefix_cache = 0 if shared else reused
        tokens = len(sequence.token_ids)
        usages.append(Usage(tokens, computed, prefix_cache, tokens - computed - prefix_cache))
    return usages
