"""Rollout files of JSON lines (``agentprm.rollouts``), written whole and strictly read."""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

from agentprm import messages
from agentprm.errors import AgentPRMError, InvalidRequest
from agentprm.rollouts import TrajectoryLine, read_line, write_line
from training.rollouts.rollout import Rollout


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Writes one trajectory a line and returns how many; ``path`` appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("wb") as file:
            for rollout in rollouts:
                file.write(write_line(to_line(rollout)))
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read_rollouts(path: Path) -> list[Rollout]:
    """Reads all rollouts of a file.

    Raises:
        AgentPRMError: a line is not a rollout; names the file, the line, the wrong field and what is wrong.
    """
    rollouts = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise AgentPRMError(f"{path} is not UTF-8; save it as UTF-8")
            try:
                read = read_line(line.rstrip(b"\r\n"))
                assert isinstance(read, TrajectoryLine)
                rollouts.append(from_line(read))
            except InvalidRequest as error:
                raise AgentPRMError(f"{path}, line {number}: not a rollout ({error})") from error
    return rollouts


def to_line(rollout: Rollout) -> TrajectoryLine:
    """Returns the line of a rollout of task and steps. Raises TypeError for a chat."""
    trajectory = rollout.trajectory
    return TrajectoryLine.model_validate(
        {
            "task": trajectory.task,
            "steps": [{"observation": step.observation, "action": step.action} for step in trajectory.steps],
            "observation": rollout.observation,
            "outcome": rollout.outcome,
            "truncated": rollout.truncated,
            "query": rollout.query,
            "continuations": rollout.continuations or None,
            "metadata": dict(rollout.metadata),
        }
    )


def from_line(line: TrajectoryLine) -> Rollout:
    """Returns the rollout of a line.

    Raises:
        InvalidRequest: its history cannot be scored, or it ended without an outcome.
    """
    if line.outcome is None and not line.truncated:
        raise InvalidRequest("outcome: missing, though the trajectory was not truncated")
    return Rollout(
        history=messages.to_steps(line),
        outcome=line.outcome,
        truncated=line.truncated,
        query=line.query or "",
        observation=line.observation or "",
        trajectory_id=line.trajectory_id,
        continuations=tuple(map(tuple, line.continuations or ())),
        labels=tuple(line.labels or ()),
        metadata=line.metadata or {},
    )
