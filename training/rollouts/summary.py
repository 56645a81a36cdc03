"""What rollouts are: how many, how long, how they came out and how many attempts each query has."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from training.rollouts.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Spread:
    """Where numbers lie: the least, percentiles, the greatest and the mean."""

    least: float
    p10: float
    median: float
    p90: float
    p99: float
    most: float
    mean: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Self | None:
        """Returns the spread, None if there are no numbers."""
        values = np.fromiter(numbers, dtype=float)
        if not len(values):
            return None
        least, p10, median, p90, p99, most = map(
            float, np.percentile(values, [0, 10, 50, 90, 99, 100], method="inverted_cdf")
        )
        return cls(least, p10, median, p90, p99, most, mean=round(float(values.mean()), 2))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Lengths of trajectories in tokens of a base model.

    Attributes:
        base: where the model is from.
        context_length: the most tokens that it reads.
        lengths: of the trajectories that its template has a place for.
        too_long: how many of them have more tokens than that.
    """

    base: str
    context_length: int
    lengths: Spread | None
    too_long: int

    @classmethod
    def of(cls, base: str, context_length: int, lengths: Sequence[int]) -> Self:
        too_long = sum(length > context_length for length in lengths)
        return cls(base, context_length, Spread.of(lengths), too_long)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of rollouts. ``outcomes`` has each value, or ranges of values where there are many."""

    trajectories: int
    chats: int
    truncated: int
    queries: int
    outcomes: dict[str, int]
    labelled_steps: int
    continued_steps: int
    steps: Spread | None
    attempts: Spread | None

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> Self:
        attempts = Counter(rollout.query for rollout in rollouts)
        return cls(
            trajectories=len(rollouts),
            chats=sum(rollout.is_chat for rollout in rollouts),
            truncated=sum(rollout.truncated for rollout in rollouts),
            queries=len(attempts),
            outcomes=_distribution([rollout.outcome for rollout in rollouts if rollout.outcome is not None]),
            labelled_steps=sum(label is not None for rollout in rollouts for label in rollout.labels),
            continued_steps=sum(bool(outcomes) for rollout in rollouts for outcomes in rollout.continuations),
            steps=Spread.of(rollout.steps for rollout in rollouts),
            attempts=Spread.of(attempts.values()),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_VALUES = 6  # so many different outcomes are listed one by one


def _distribution(outcomes: Sequence[float]) -> dict[str, int]:
    counts = Counter(outcomes)
    if len(counts) <= _VALUES:
        return {f"{value:g}": count for value, count in sorted(counts.items())}
    ranges = Counter(min(int(outcome * 5), 4) for outcome in outcomes)
    return {f"{number / 5:g} to {(number + 1) / 5:g}": ranges[number] for number in range(5)}
