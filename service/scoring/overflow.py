"""Renders histories that have more tokens than the model reads: cut until they fit.

The length is judged after the cut, by rendering. A step whose history fits is never cut.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, Overflow, State, Step, Trajectory
from model_store.text.runs import Unrenderable
from service.scoring.cut_ladders import Ladder, Lens, ladder_of
from service.scoring.history_parts import Parts, parts_of, texts_of
from service.scoring.sequences import KeyedSequence, Sequencer
from service.scoring.source import ItemQuestions

MAX_CUTS: Final = 64
"""Most cuts of a trajectory whose every step is scored: each is a sequence of its own that may fill the context."""
_SAMPLE: Final = Step("x", "x")


class _Run(NamedTuple):
    """Consecutive positions that are read in one cut, up to ``end``."""

    rung: int
    end: int
    sequences: list[KeyedSequence]


class _Around(NamedTuple):
    """Tokens that the template puts around a step, and around everything else."""

    step: int = 12
    head: int = 12


class Overflowing:
    """Renders with one sequencer; any thread may call it at any time."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    def trajectory(
        self, history: Trajectory | Conversation, last: int | None, overflow: Overflow
    ) -> ItemQuestions[KeyedSequence]:
        """Renders as ``Sequencer.trajectory``. The ``last`` steps are read in the last one's cut, all each in its own.

        Raises:
            TooLong: a step does not fit at its shortest cut, or there are more than ``MAX_CUTS``.
            Unrenderable: as ``Sequencer.trajectory``.
        """
        try:
            return ItemQuestions(self._sequencer.trajectory(history, last))
        except TooLong:
            parts = parts_of(history)
        ladder, position = self._ladder(parts, overflow), len(parts.observations)
        if last is None:
            return self._every_step(ladder, position)
        rung, sequences = self._first_fit(ladder, position, ladder.start(position, self._room), last)
        return ItemQuestions(sequences, *ladder.loss(position, rung))

    def candidates(
        self, state: State | Conversation, candidates: Sequence[str | Message], overflow: Overflow
    ) -> ItemQuestions[KeyedSequence]:
        """Renders as ``Sequencer.candidates``: all candidates after the same cut, in which the longest one fits.

        Raises as ``trajectory``.
        """
        try:
            return ItemQuestions(self._sequencer.candidates(state, candidates))
        except TooLong:
            parts = parts_of(state)
        ladder, position = self._ladder(parts, overflow), len(parts.observations)
        longest = max(sum(self._sequencer.count_tokens(texts_of(action))) for action in candidates)
        start = ladder.start(position, self._room - longest)
        for rung in range(start, ladder.top + 1):
            cut = ladder.cut(position, rung)
            assert not isinstance(cut, Trajectory)
            try:
                return ItemQuestions(self._sequencer.candidates(cut, candidates), *ladder.loss(position, rung))
            except TooLong as error:
                refusal = error
        raise refusal

    @property
    def _room(self) -> int:
        return self._sequencer.context_length

    def _every_step(self, ladder: Ladder, positions: int) -> ItemQuestions[KeyedSequence]:
        end = self._last_fitting(ladder, 0, positions - 1, rung=0)
        sequences = self._render(ladder, end, 0, end) if end else []
        rung, apart = 0, set[int]()
        for _ in range(MAX_CUTS):
            if end == positions:
                return ItemQuestions(sequences, *ladder.loss(end, rung), frozenset(apart))
            run = self._run(ladder, end + 1, positions)
            if not (run.rung == rung and ladder.continues(end + 1, rung)):
                apart.add(end)
            sequences += run.sequences
            rung, end = run.rung, run.end
        raise TooLong(
            f"the history has to be cut at more than {MAX_CUTS} places to score its every step: score its last steps",
            details={"limit": MAX_CUTS},
        )

    def _run(self, ladder: Ladder, begin: int, positions: int) -> _Run:
        """Renders the positions from ``begin`` on that one cut is right for."""
        rung = ladder.start(begin, self._room)
        end = begin
        while end < positions and ladder.start(end + 1, self._room) == rung and ladder.continues(end + 1, rung):
            end += 1
        end = self._last_fitting(ladder, begin - 1, end, rung)
        if end >= begin:
            return _Run(rung, end, self._render(ladder, end, rung, end - begin + 1))
        rung, sequences = self._first_fit(ladder, begin, rung + 1, 1)
        return _Run(rung, begin, sequences)

    def _first_fit(self, ladder: Ladder, position: int, start: int, last: int) -> tuple[int, list[KeyedSequence]]:
        for rung in range(min(start, ladder.top), ladder.top + 1):
            try:
                return rung, self._render(ladder, position, rung, last)
            except TooLong as error:
                refusal = error
        raise refusal

    def _last_fitting(self, ladder: Ladder, fits: int, last: int, rung: int) -> int:
        """Returns the last position of (``fits``, ``last``] that fits at a rung; ``fits`` if none does."""
        tried, too_long = last, last + 1
        while fits < tried:
            try:
                self._render(ladder, tried, rung, 1)
                fits = tried
            except TooLong:
                too_long = tried
            tried = (fits + too_long) // 2
        return fits

    def _render(self, ladder: Ladder, position: int, rung: int, last: int) -> list[KeyedSequence]:
        cut = ladder.cut(position, rung)
        assert not isinstance(cut, State)
        return self._sequencer.trajectory(cut, last)

    def _ladder(self, parts: Parts, overflow: Overflow) -> Ladder:
        return ladder_of(overflow, parts, self._lens(parts), self._room, self._sequencer.count_tokens)

    def _lens(self, parts: Parts) -> Lens:
        step, head = self._around
        counts = [
            [sum(self._sequencer.count_tokens(texts)) for texts in each] for each in (parts.observations, parts.actions)
        ]
        observations = [count + step // 2 for count in counts[0]]
        actions = [count + step - step // 2 for count in counts[1]]
        return Lens(head + sum(self._sequencer.count_tokens(parts.head)), observations, actions)

    @cached_property
    def _around(self) -> _Around:
        """Measured on a sample. A template that refuses it is assumed to have as many as others."""
        try:
            three, one = (
                len(self._sequencer.trajectory(Trajectory("x", (_SAMPLE,) * steps), 1)[-1].token_ids)
                for steps in (3, 1)
            )
        except (TooLong, Unrenderable):
            return _Around()
        text = sum(self._sequencer.count_tokens(["x"]))
        step = (three - one) // 2 - 2 * text
        return _Around(step, one - step - 3 * text)
