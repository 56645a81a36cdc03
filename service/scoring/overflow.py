"""Renders histories that have more tokens than the model reads: cut until they fit.

The length is judged after the cut, by rendering. A step whose history fits is never cut.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain, islice
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
MAX_RENDERED_STEPS: Final = 125_000
"""Most steps that are rendered for a trajectory whose every step is scored. Each counts those before it in its cut: a
chat template renders them again for each step."""
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
        lens, position = self._lens(parts), len(parts.observations)
        ladder = self._ladder(parts, lens, overflow)
        if last is None:
            return self._every_step(ladder, position, lens.last_whole(self._room))
        rung, sequences = self._first_fit(ladder, position, ladder.start(position, self._room), last)
        return _cut(ladder, position, rung, sequences)

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
        ladder, position = self._ladder(parts, self._lens(parts), overflow), len(parts.observations)
        longest = max(sum(self._sequencer.count_tokens(texts_of(action))) for action in candidates)
        start = ladder.start(position, self._room - longest)
        for rung in range(start, ladder.top + 1):
            cut = ladder.cut(position, rung)
            assert not isinstance(cut, Trajectory)
            try:
                return _cut(ladder, position, rung, self._sequencer.candidates(cut, candidates))
            except TooLong as error:
                refusal = error
        raise refusal

    @property
    def _room(self) -> int:
        return self._sequencer.context_length

    def _every_step(self, ladder: Ladder, positions: int, guess: int) -> ItemQuestions[KeyedSequence]:
        """Renders all steps. ``guess``: the last position whose history should fit uncut."""
        runs = [self._longest_run(ladder, 1, positions - 1, 0, guess)]
        apart, rendered = set[int](), 0
        while (end := runs[-1].end) < positions:
            if len(runs) > MAX_CUTS or rendered > MAX_RENDERED_STEPS:
                raise TooLong(
                    f"the history is too long for a score of every step: it needs more than {MAX_CUTS} cuts or "
                    f"{MAX_RENDERED_STEPS} rendered steps; score its last steps",
                    details={"cuts": MAX_CUTS, "steps": MAX_RENDERED_STEPS},
                )
            run = self._run(ladder, end + 1, positions)
            rendered += sum(at - ladder.dropped_steps(at, run.rung) for at in range(end + 1, run.end + 1))
            if not ladder.continues(end + 1, run.rung, runs[-1].rung):
                apart.add(end)
            runs.append(run)
        sequences = list(chain.from_iterable(run.sequences for run in runs))
        return _cut(ladder, positions, runs[-1].rung, sequences, apart)

    def _run(self, ladder: Ladder, begin: int, positions: int) -> _Run:
        """Renders the positions from ``begin`` on for which one cut is right."""
        rung = ladder.start(begin, self._room)
        end = begin
        while end < positions and ladder.start(end + 1, self._room) == rung and ladder.continues(end + 1, rung, rung):
            end += 1
        run = self._longest_run(ladder, begin, end, rung, end)
        if run.sequences:
            return run
        rung, sequences = self._first_fit(ladder, begin, rung + 1, 1)
        return _Run(rung, begin, sequences)

    def _first_fit(self, ladder: Ladder, position: int, start: int, last: int) -> tuple[int, list[KeyedSequence]]:
        for rung in range(min(start, ladder.top), ladder.top + 1):
            try:
                return rung, self._render(ladder, position, rung, last)
            except TooLong as error:
                refusal = error
        raise refusal

    def _longest_run(self, ladder: Ladder, begin: int, last: int, rung: int, guess: int) -> _Run:
        """Renders the positions from ``begin`` to the last one that fits at a rung, which ``guess`` should be.

        Without any it has no sequences. A position fits if a later one does.
        """
        run, too_long = _Run(rung, begin - 1, []), last + 1
        tried = guess = min(max(guess, begin), last)
        while run.end < tried < too_long:
            try:
                run = _Run(rung, tried, self._render(ladder, tried, rung, tried - begin + 1))
            except TooLong:
                too_long = tried
            tried = guess + 1 if run.end == guess else (run.end + too_long) // 2
        return run

    def _render(self, ladder: Ladder, position: int, rung: int, last: int) -> list[KeyedSequence]:
        cut = ladder.cut(position, rung)
        assert not isinstance(cut, State)
        return self._sequencer.trajectory(cut, last)

    def _ladder(self, parts: Parts, lens: Lens, overflow: Overflow) -> Ladder:
        return ladder_of(overflow, parts, lens, self._room, self._sequencer.count_tokens)

    def _lens(self, parts: Parts) -> Lens:
        step, head = self._around
        groups = [parts.head, *parts.observations, *parts.actions]
        counts = iter(self._sequencer.count_tokens(list(chain.from_iterable(groups))))
        own, *rest = (sum(islice(counts, len(texts))) for texts in groups)
        observations = [count + step // 2 for count in rest[: len(parts.observations)]]
        actions = [count + step - step // 2 for count in rest[len(parts.observations) :]]
        return Lens(head + own, observations, actions)

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


def _cut(
    ladder: Ladder, position: int, rung: int, sequences: list[KeyedSequence], apart: Iterable[int] = ()
) -> ItemQuestions[KeyedSequence]:
    """The questions of an item, with what the history up to ``position`` lacks at its rung."""
    dropped, tokens = ladder.dropped_steps(position, rung), ladder.cut_tokens(position, rung)
    return ItemQuestions(sequences, dropped, tokens, frozenset(apart))
