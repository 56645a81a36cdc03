"""Scores by a model in this service: token sequences through the batcher. Knows no score cache."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from agentprm.types import Conversation, Message, Overflow, State, Trajectory, Usage
from service.queue.batcher import Batcher
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.queue.texts import TextQueue
from service.queue.work import Answer, Work
from service.score_cache.keys import Key
from service.scoring.overflow import Overflowing
from service.scoring.sequences import KeyedSequence, Sequencer
from service.scoring.source import Computed, ItemQuestions

TOKENS_PER_CHARACTER: Final = 4
"""Tokens whose cost is estimated in the time that tokenising a character takes: 0.1 us, 25 ns for each token."""
WARM_UP_TOKENS: Final = 16
_NOTHING: Final = Answer([], [], [], 0.0, 0.0)


class TokenSource:
    """A model on a device of this machine. Implements ``Source``.

    Args:
        sequencer: renders items to token ids, read positions and keys.
        batcher: the queue of the model's engine.
        texts: gives long requests their turns, in which their cost is estimated.
    """

    def __init__(self, sequencer: Sequencer, batcher: Batcher, texts: TextQueue) -> None:
        self._sequencer = sequencer
        self._overflowing = Overflowing(sequencer)
        self._batcher = batcher
        self._texts = texts

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    @property
    def renders_anew(self) -> bool:
        return self._sequencer.renders_anew

    def refuse_unless_open(self) -> None:
        self._batcher.refuse_unless_open()

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        self._batcher.refuse_if_full(caller, priority)

    async def start(self) -> None:
        """Starts the batcher and sends one forward through, so that the first caller does not pay for it."""
        self._batcher.start()
        length = min(WARM_UP_TOKENS, self._sequencer.context_length)
        warm_up = self._batcher.prepare([[0] * length], [[length - 1]], ["warm-up"])
        await self._batcher.submit(warm_up, Terms())

    async def close(self) -> None:
        await self._batcher.close()

    def trajectory(
        self, history: Trajectory | Conversation, last: int | None, overflow: Overflow = "error"
    ) -> ItemQuestions[KeyedSequence]:
        if overflow == "error":
            return ItemQuestions(self._sequencer.trajectory(history, last))
        return self._overflowing.trajectory(history, last, overflow)

    def candidates(
        self, state: State | Conversation, candidates: Sequence[str | Message], overflow: Overflow = "error"
    ) -> ItemQuestions[KeyedSequence]:
        if overflow == "error":
            return ItemQuestions(self._sequencer.candidates(state, candidates))
        return self._overflowing.candidates(state, candidates, overflow)

    async def compute(self, questions: Sequence[KeyedSequence], known: Mapping[Key, float], terms: Terms) -> Computed:
        """Submits the sequences with unknown scores as one request to the batcher."""
        missing = [sequence.without(known) for sequence in questions]
        submitted = [sequence for sequence in missing if sequence]
        answer = await self._batcher.submit(await self._prepare(submitted, terms), terms) if submitted else _NOTHING
        return Computed(_scores(submitted, answer), _usages(questions, missing, answer), answer.queue, answer.forward)

    async def _prepare(self, sequences: Sequence[KeyedSequence], terms: Terms) -> Work:
        """Estimates what the sequences cost, off the event loop if they are long."""
        token_ids, reads, keys, _ = zip(*sequences, strict=True)
        prepare = partial(self._batcher.prepare, token_ids, reads, list(map(tuple, keys)))
        cost = sum(map(len, token_ids)) // TOKENS_PER_CHARACTER
        return await self._texts.in_turn(prepare, cost, terms)


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
        usages.append(Usage(tokens, computed, prefix_cache, tokens - computed - prefix_cache, sequence.unknown))
    return usages
