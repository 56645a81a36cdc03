"""Rollout files of JSON lines (``agentprm.rollouts``), written whole."""

import os
from collections.abc import Iterable
from pathlib import Path

from agentprm.rollouts import write_line
from training.rollouts.lines import to_line
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
