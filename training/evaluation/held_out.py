"""What the promises of a model are worth on rollouts that it was not trained on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from agentprm.types import Conversation
from training.evaluation.best_of_n import Attempt, BestOf, best_of_n
from training.evaluation.resampling import Figure, Resamples
from training.evaluation.steps import Bin, Steps, auc_by_position, brier, ece, floors, reliability, step_auc
from training.rollouts.lines import task_text
from training.rollouts.rollout import Rollout

NAMED: Final = 5
"""Queries that a note names."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Figures on held-out queries, each with its interval over queries (``Figure``).

    ``floors`` are AUCs that need no model. ``leaks`` are held-out queries whose task text was trained on under another
    query. ``best_of_n`` is empty unless queries have several attempts.
    """

    trajectories: int
    queries: int
    steps: int
    success: float | None
    step_auc: Figure
    auc_by_position: dict[str, Figure]
    floors: dict[str, Figure]
    ece: Figure
    brier: Figure
    reliability: list[Bin]
    best_of_n: list[BestOf]
    leaks: list[str]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON, four digits each."""
        found: dict[str, Any] = _rounded(asdict(self))
        return found


def measure(
    rollouts: Sequence[Rollout],
    promises: Sequence[Sequence[float]],
    *,
    orm: Sequence[Sequence[float]] | None = None,
    trained_on: Sequence[Rollout] = (),
    seed: int = 0,
) -> HeldOut:
    """Measures step promises, one list a rollout; ``orm`` are those of an outcome model on the same rollouts.

    Rollouts that a limit cut and that have no outcome are left out, and counted in a note. ``trained_on`` is searched
    for the tasks of these rollouts. ``seed`` decides the bootstrap.
    """
    known = [index for index, rollout in enumerate(rollouts) if rollout.outcome is not None]
    chosen = [rollouts[index] for index in known]
    query_of = {query: number for number, query in enumerate(dict.fromkeys(rollout.query for rollout in chosen))}
    steps = _steps(chosen, [promises[index] for index in known], query_of)
    resamples = Resamples(len(query_of), seed)
    attempts: list[list[Attempt]] = [[] for _ in query_of]
    for index, rollout in zip(known, chosen, strict=True):
        attempts[query_of[rollout.query]].append(_attempt(rollout, promises[index], orm[index] if orm else None))
    left_out = len(rollouts) - len(known)
    return HeldOut(
        trajectories=len(chosen),
        queries=len(query_of),
        steps=len(steps.promise_N),
        success=float(np.mean([rollout.outcome for rollout in chosen])) if chosen else None,
        step_auc=step_auc(steps, resamples),
        auc_by_position=auc_by_position(steps, resamples),
        floors=floors(steps, resamples),
        ece=ece(steps, resamples),
        brier=brier(steps, resamples),
        reliability=reliability(steps),
        best_of_n=best_of_n(attempts, seed),
        leaks=_leaks(chosen, trained_on),
        notes=[f"{left_out} truncated trajectories without an outcome are left out"] if left_out else [],
    )


def as_text(figures: HeldOut) -> str:
    """The figures for a terminal."""
    lines = [
        f"{figures.trajectories} trajectories of {figures.queries} queries, {figures.steps} steps",
        f"success                {'-' if figures.success is None else f'{figures.success:.3f}'}",
        f"step AUC               {figures.step_auc}",
        *(f"  {name:<20} {figure}" for name, figure in figures.auc_by_position.items()),
        *(f"  floor: {name:<13} {figure}" for name, figure in figures.floors.items()),
        f"ECE                    {figures.ece}",
        f"Brier                  {figures.brier}",
    ]
    for row in figures.best_of_n:
        others = {"random": row.random, "majority": row.majority, "oracle": row.oracle, "ORM": row.orm}
        beside = ", ".join(f"{name} {figure}" for name, figure in others.items() if figure is not None)
        lines.append(f"best of {row.n:<2} ({row.queries} queries) promise {row.promise}, {beside}")
    if figures.leaks:
        lines.append(f"{len(figures.leaks)} held-out tasks were trained on: {', '.join(figures.leaks[:NAMED])}")
    return "\n".join([*lines, *figures.notes])


def _steps(rollouts: Sequence[Rollout], promises: Sequence[Sequence[float]], query_of: dict[str, int]) -> Steps:
    rows = [
        (promise, rollout.outcome, query_of[rollout.query], index, len(own))
        for rollout, own in zip(rollouts, promises, strict=True)
        for index, promise in enumerate(own)
    ]
    columns_5N = np.array(rows, dtype=float).reshape(-1, 5).T
    return Steps(columns_5N[0], columns_5N[1], columns_5N[2].astype(int), columns_5N[3], columns_5N[4])


def _attempt(rollout: Rollout, promises: Sequence[float], orm: Sequence[float] | None) -> Attempt:
    assert rollout.outcome is not None, "measure leaves out the others"
    return Attempt(rollout.outcome, promises[-1], orm[-1] if orm else None, _last_action(rollout))


def _last_action(rollout: Rollout) -> str:
    if isinstance(rollout.history, Conversation):
        last = rollout.history.messages[rollout.history.step_ends[-1] - 1]
        return repr((last.text, [(call.name, call.arguments) for call in last.tool_calls]))
    return rollout.history.steps[-1].action


def _leaks(rollouts: Sequence[Rollout], trained_on: Sequence[Rollout]) -> list[str]:
    trained = {task_text(rollout.history) for rollout in trained_on}
    return sorted({rollout.query for rollout in rollouts if task_text(rollout.history) in trained})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items() if each not in (None, "")}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
