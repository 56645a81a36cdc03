"""Measures variants side by side: interleaved rounds, CPU seconds, and ratios within a round.

On a shared machine wall time depends on the other processes. So a cost is the CPU seconds of this process, and a ratio
divides what two variants took in the same round. A quick variant is repeated within its round; the mean counts, never
the best.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from time import perf_counter, process_time
from typing import Final, NamedTuple

import torch

from benchmarks.workloads.tokens import Call
from service.engine.packed_linear import PackedLinear

LEAST_SECONDS: Final = 0.3
MOST_PASSES: Final = 20
PEAK_SIZE: Final = 1024


class Answer(NamedTuple):
    """Scores of a call in order, and the number of tokens that went through the model for them."""

    raw: list[float]
    computed: int


def _nothing(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to score; ``prepare(index)`` runs before the call of that index and is not timed."""

    name: str
    calls: Sequence[Call]
    score: Callable[[Call], Answer]
    prepare: Callable[[int], None] = _nothing


@dataclass(slots=True)
class Timings:
    """Measurements of one variant: CPU seconds [round][call], wall seconds of every call, scores, computed tokens."""

    cpu: list[list[float]] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    computed: int = 0

    @property
    def rounds(self) -> list[float]:
        """CPU seconds of one pass over all calls, by round."""
        return [sum(calls) for calls in self.cpu]


class Ratio(NamedTuple):
    """A ratio over several rounds."""

    median: float
    least: float
    most: float


def measure(variants: Sequence[Variant], rounds: int) -> dict[str, Timings]:
    """Runs every variant in each round; each round starts with another variant, so that none is always first."""
    timings = {variant.name: Timings() for variant in variants}
    for number in range(rounds):
        start = number % len(variants)
        for variant in (*variants[start:], *variants[:start]):
            _measure_round(variant, timings[variant.name])
    return timings


def ratios(base: Sequence[float], other: Sequence[float]) -> Ratio:
    """Returns ``base / other``, round by round."""
    by_round = [over / under for over, under in zip(base, other, strict=True)]
    return Ratio(median(by_round), min(by_round), max(by_round))


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the nearest-rank percentile, a value that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Returns p50, p95, p99 and the number of samples."""
    found = {f"p{share}": percentile(milliseconds, share / 100) for share in (50, 95, 99)}
    return {**found, "samples": len(milliseconds)}


def largest_difference(left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]) -> float:
    """Returns the largest difference between two lists of scores in the same order, however they are grouped."""
    left_flat, right_flat = ([score for scores in answer for score in scores] for answer in (left, right))
    return max(abs(left - right) for left, right in zip(left_flat, right_flat, strict=True))


def growth(cpu: Sequence[Sequence[float]], late: int, early: int) -> Ratio:
    """Returns the cost of the call at ``late`` over that of the call at ``early``, round by round."""
    return ratios([calls[late] for calls in cpu], [calls[early] for calls in cpu])


def measure_peak() -> float:
    """Returns FLOP per CPU second of a square float32 product: the best of two libraries, on one thread."""
    left = torch.randn(PEAK_SIZE, PEAK_SIZE)
    plain = torch.nn.Linear(PEAK_SIZE, PEAK_SIZE, bias=False).requires_grad_(requires_grad=False)
    best = float("inf")
    for product in (plain, PackedLinear(plain)):
        for _ in range(8):
            started = process_time()
            product(left)
            best = min(best, process_time() - started)
    return 2 * PEAK_SIZE**3 / best


def _measure_round(variant: Variant, timings: Timings) -> None:
    passes: list[list[float]] = []
    gc.collect()
    while len(passes) < MOST_PASSES and sum(map(sum, passes)) < LEAST_SECONDS:
        passes.append(_pass(variant, timings))
    timings.cpu.append([fmean(call) for call in zip(*passes, strict=True)])


def _pass(variant: Variant, timings: Timings) -> list[float]:
    cpu, timings.raw, timings.computed = [], [], 0
    for index, call in enumerate(variant.calls):
        variant.prepare(index)
        started, started_cpu = perf_counter(), process_time()
        answer = variant.score(call)
        cpu.append(process_time() - started_cpu)
        timings.wall.append(perf_counter() - started)
        timings.raw += answer.raw
        timings.computed += answer.computed
    return cpu
