"""Workloads of the engine: seeded token ids in the shapes in which agents call.

W1  rank N candidates of 24 tokens over a history
W2  trajectories that grow by steps of 60 tokens; after each step its score
W3  every step of a long trajectory at once
W4  unrelated requests of mixed lengths
W5  the agent loop (rank 8, take one, observe): synthetic here, recorded in ``textcraft.py``
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmarks.workloads.models import VOCABULARY

CANDIDATE: Final = 24
STEP: Final = 60
SPREAD: Final = 0.9  # of the logarithm of a request's length
W5_TASK, W5_OBSERVATION, W5_CANDIDATES = 128, 36, 8


class Call(NamedTuple):
    """One call of an engine: sequences, and the positions of each at which a score is read."""

    token_ids: list[list[int]]
    reads: list[list[int]]

    @property
    def items(self) -> int:
        """Scores asked for."""
        return sum(map(len, self.reads))

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, each in full."""
        return sum(map(len, self.token_ids))


@dataclass(frozen=True, slots=True)
class Workload:
    """Engine calls in order.

    ``naive`` asks for the same scores in the same order without reading several scores from one sequence. ``held`` is,
    for each call, what a warm engine has in its cache. ``grows`` says that each call extends the calls before it.
    """

    name: str
    case: str
    calls: tuple[Call, ...]
    naive: tuple[Call, ...] | None = None
    held: tuple[Call, ...] | None = None
    grows: bool = False

    @property
    def tokens(self) -> int:
        return sum(call.tokens for call in self.naive or self.calls)

    @property
    def items(self) -> int:
        return sum(call.items for call in self.calls)


def last_reads(token_ids: Sequence[list[int]]) -> Call:
    """Returns a call that reads each sequence at its end."""
    return Call(list(token_ids), [[len(ids) - 1] for ids in token_ids])


def rank(history: int, candidates: int, calls: int = 1) -> Workload:
    """Returns W1: rankings, each over a history of its own."""
    rng = random.Random(f"W1 {history} {candidates}")
    histories = [_tokens(rng, history) for _ in range(calls)]
    ranked = [last_reads([ids + _tokens(rng, CANDIDATE) for _ in range(candidates)]) for ids in histories]
    held = tuple(last_reads([ids]) for ids in histories)
    return Workload("W1", f"P={history} N={candidates}", tuple(ranked), held=held)


def grow(steps: int, trajectories: int) -> Workload:
    """Returns W2: trajectories that are scored after each step."""
    rng = random.Random(f"W2 {steps} {trajectories}")
    whole = [_tokens(rng, steps * STEP) for _ in range(trajectories)]
    calls = [last_reads([ids[: STEP * step] for ids in whole]) for step in range(1, steps + 1)]
    return Workload("W2", f"T={steps} B={trajectories}", tuple(calls), grows=True)


def all_steps(tokens: int, steps: int) -> Workload:
    """Returns W3: one trajectory with a score at the end of every step."""
    ids = _tokens(random.Random(f"W3 {tokens} {steps}"), tokens)
    ends = [tokens * step // steps - 1 for step in range(1, steps + 1)]
    return Workload(
        "W3",
        f"{steps} steps, {tokens} tokens",
        (Call([ids], [ends]),),
        naive=(last_reads([ids[: end + 1] for end in ends]),),
    )


def unrelated(median: int, shortest: int, longest: int, concurrency: int, calls: int) -> Workload:
    """Returns W4; lengths are log-normal, as those of requests are: many short, few long."""
    rng = random.Random(f"W4 {median} {concurrency}")
    batches = [
        last_reads([_tokens(rng, _log_normal(rng, median, shortest, longest)) for _ in range(concurrency)])
        for _ in range(calls)
    ]
    return Workload("W4", f"median {median} tokens, {concurrency} at once", tuple(batches))


def agent_loop(steps: int) -> Workload:
    """Returns W5: ranks 8 candidates, takes a random one, observes, and so on."""
    rng = random.Random(f"W5 {steps}")
    history, calls = _tokens(rng, W5_TASK), []
    for _ in range(steps):
        proposed = [history + _tokens(rng, CANDIDATE) for _ in range(W5_CANDIDATES)]
        calls.append(last_reads(proposed))
        history = rng.choice(proposed) + _tokens(rng, W5_OBSERVATION)
    return Workload("W5", f"synthetic, {steps} steps", tuple(calls), grows=True)


def full() -> list[Workload]:
    """Returns the workloads of the table in docs/results.md."""
    return [
        *(rank(history, candidates) for history in (256, 1024, 2048) for candidates in (4, 16, 64)),
        grow(30, 1),
        grow(30, 8),
        all_steps(2048, 32),
        unrelated(110, 30, 480, 1, calls=32),
        unrelated(110, 30, 480, 8, calls=4),
        unrelated(110, 30, 480, 32, calls=4),
        unrelated(23, 4, 155, 64, calls=4),
        agent_loop(12),
    ]


def quick() -> list[Workload]:
    """Returns small workloads of the same shapes, to see that everything works."""
    return [
        rank(256, 4),
        rank(256, 16),
        grow(8, 1),
        grow(6, 3),
        all_steps(512, 8),
        unrelated(110, 30, 480, 1, calls=4),
        unrelated(110, 30, 480, 8, calls=1),
        unrelated(23, 4, 155, 32, calls=1),
        agent_loop(5),
    ]


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(1, VOCABULARY) for _ in range(count)]


def _log_normal(rng: random.Random, median: int, low: int, high: int) -> int:
    return max(low, min(high, round(rng.lognormvariate(math.log(median), SPREAD))))
