"""JSON lines, strictly read."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from training.rollouts.rollout import Rollout


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Writes one JSON object a line and returns how many; ``path`` appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for rollout in rollouts:
                file.write(json.dumps(asdict(rollout)) + "\n")
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read_rollouts(path: Path) -> list[Rollout]:
    """All rollouts of a file.

    Raises:
        AgentPRMError: a line is not a rollout; names the file, the line and what is wrong.
    """
    rollouts = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rollouts.append(_rollout(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise AgentPRMError(f"{path}, line {number}: not a rollout ({reason})") from error
    return rollouts


def _rollout(row: Any) -> Rollout:
    expected = {field.name for field in fields(Rollout)}
    if not isinstance(row, dict) or row.keys() != expected:
        raise ValueError(f"expected an object with exactly {', '.join(sorted(expected))}")
    written = row["trajectory"]
    steps = tuple(Step(_typed(step, "observation", str), _typed(step, "action", str)) for step in written["steps"])
    rollout = Rollout(
        trajectory=Trajectory(_typed(written, "task", str), steps),
        final_observation=_typed(row, "final_observation", str),
        outcome=float(_typed(row, "outcome", float, int)),
        terminated=_typed(row, "terminated", bool),
        truncated=_typed(row, "truncated", bool),
        goal=_typed(row, "goal", str),
        seed=_typed(row, "seed", int),
    )
    if not 0 <= rollout.outcome <= 1:
        raise ValueError(f"outcome is {rollout.outcome}, not in [0, 1]")
    if rollout.terminated == rollout.truncated:
        raise ValueError("a rollout is either terminated or truncated")
    return rollout


def _typed(row: Any, name: str, *kinds: type) -> Any:
    value = row[name]
    if type(value) not in kinds:
        raise TypeError(f"{name} is {value!r}, not {' or '.join(kind.__name__ for kind in kinds)}")
    return value
