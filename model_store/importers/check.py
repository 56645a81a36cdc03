"""Compares a checkpoint's scores with those that its authors compute."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentprm.errors import InvalidRequest
from agentprm.messages import to_history
from agentprm.types import Conversation, Trajectory
from agentprm.wire import ScoreRequest, TrajectoryItem, validate
from model_store.errors import CheckpointCorrupt, CheckpointError
from model_store.format.check import Check, CheckFile
from model_store.format.store import Checkpoint
from model_store.network.model import load_model, score_rows
from model_store.text.chat_renderer import ReadTokens
from model_store.text.loading import render, renderer_of
from model_store.text.runs import TooManyTokens, Unrenderable


@dataclass(frozen=True, slots=True)
class ComparedStep:
    """One number of the authors beside the score here; ``item`` and ``step`` count from 0."""

    item: int
    step: int
    measure: Literal["promise", "raw"]
    authors: float
    ours: float
    ok: bool

    @property
    def difference(self) -> float:
        return abs(self.authors - self.ours)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All numbers of a file, compared; ``items`` is the digest of its items."""

    steps: tuple[ComparedStep, ...]
    tolerance: float
    items: str

    @property
    def agrees(self) -> bool:
        return all(step.ok for step in self.steps)

    @property
    def largest_difference(self) -> float:
        return max(step.difference for step in self.steps)

    def outcome(self) -> Check:
        """Returns what the manifest keeps of it."""
        return Check(self.items, self.tolerance, self.largest_difference, len(self.steps))

    def in_words(self) -> str:
        """Returns one sentence about the whole comparison."""
        count, differ = len(self.steps), sum(not step.ok for step in self.steps)
        counted = f"{differ} of {count} scores differ" if differ else f"{count} scores agree"
        return (
            f"{counted} (the authors' numbers against the scores here, tolerance {self.tolerance:g}, "
            f"largest difference {self.largest_difference:.2g})"
        )


class CheckFailed(CheckpointError):
    """Scores differ from the authors' numbers by more than the tolerance; ``comparison`` has all of them."""

    def __init__(self, comparison: Comparison) -> None:
        super().__init__(f"{comparison.in_words()}; nothing was published")
        self.comparison = comparison


def compare(checkpoint: Checkpoint, file: CheckFile) -> Comparison:
    """Scores the items of ``file`` by the plain forward on the CPU, each on its own, and compares.

    Raises:
        CheckpointError: an item cannot be rendered or scored, or its numbers are not as many as its steps.
    """
    rows = _rendered(checkpoint, file)
    numbers = [_by_step(file, index, sum(len(row.reads) for row in item)) for index, item in enumerate(rows)]
    compared: list[ComparedStep] = []
    for index, raw in enumerate(_raw_scores(checkpoint, rows)):
        measure = file.items[index].measure
        for step, authors in numbers[index].items():
            ours = raw[step] if measure == "raw" else checkpoint.manifest.score.promise(raw[step])
            ok = abs(authors - ours) <= file.tolerance
            compared.append(ComparedStep(index, step, measure, authors, ours, ok))
    return Comparison(tuple(compared), file.tolerance, file.digest())


def _rendered(checkpoint: Checkpoint, file: CheckFile) -> list[list[ReadTokens]]:
    """Token ids and read positions of each item."""
    renderer, limit = renderer_of(checkpoint), checkpoint.manifest.context_length
    rows: list[list[ReadTokens]] = []
    for index, history in enumerate(_histories(file)):
        try:
            rows.append(render(renderer, history, limit))
        except TooManyTokens as error:
            raise CheckpointError(f"check: items.{index} has more than the {limit} tokens that are read") from error
        except Unrenderable as error:
            raise CheckpointError(f"check: items.{index}: {error}") from error
    return rows


def _histories(file: CheckFile) -> list[Trajectory | Conversation]:
    try:
        request = validate(ScoreRequest, {"items": [item.history for item in file.items]})
    except InvalidRequest as error:
        raise CheckpointError(f"check: {error}") from error
    return [
        _history(item, f"items.{index}") for index, item in enumerate(request.items) if isinstance(item, TrajectoryItem)
    ]


def _history(item: TrajectoryItem, place: str) -> Trajectory | Conversation:
    """What the renderer takes of an item."""
    try:
        return to_history(item)
    except InvalidRequest as error:
        raise CheckpointError(f"check: {place}: {error}") from error


def _by_step(file: CheckFile, index: int, steps: int) -> dict[int, float]:
    """The authors' numbers of one item, by the step that each is about."""
    item = file.items[index]
    if not isinstance(item.numbers, tuple):
        return {steps - 1: item.numbers}
    if len(item.numbers) == steps:
        return dict(enumerate(item.numbers))
    raise CheckpointError(
        f"check: items.{index}.{item.measure} must hold as many numbers as the item has steps, {steps}; it holds "
        f"{len(item.numbers)} (a single number without a list is the last step's)"
    )


def _raw_scores(checkpoint: Checkpoint, rows: Sequence[Sequence[ReadTokens]]) -> Iterator[list[float]]:
    """Yields the raw scores of each item's steps."""
    model = load_model(checkpoint, "cpu", "auto")
    for index, item in enumerate(rows):
        raw = [score for row in item for score in score_rows(model, [row.token_ids], [row.reads])[0]]
        if not all(map(math.isfinite, raw)):
            raise CheckpointCorrupt(f"check: items.{index} gets no finite score")
        yield raw
