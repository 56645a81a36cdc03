"""How long the service takes to rank actions with a checkpoint, along held-out trajectories."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from agentprm.client import Client
from agentprm.types import State
from testbed.processes import serve_agentprm
from training.rollouts.rollout import Rollout

_CANDIDATES: Final = ("inventory", "turn left", "go back")
"""Ranked beside the action that was taken."""


def ranking_latency(store: Path, model: str, rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Returns milliseconds of ``/rank_actions`` with four candidates, on one thread.

    Every trajectory is walked step by step, as an agent does, so all but the last step is in the prefix cache.
    """
    first: list[float] = []
    later: list[float] = []
    with serve_agentprm(store, model) as server, Client(server.url) as client:
        for rollout in rollouts:
            trajectory = rollout.trajectory
            for index, step in enumerate(trajectory.steps):
                state = State(trajectory.task, trajectory.steps[:index], step.observation)
                begin = perf_counter()
                client.rank(state, (step.action, *_CANDIDATES))
                (later if index else first).append(1000 * (perf_counter() - begin))
    return {
        "candidates": 1 + len(_CANDIDATES),
        "first step, median ms": float(np.median(first)),
        "later steps, median ms": float(np.median(later)),
        "later steps, 95 % ms": float(np.quantile(later, 0.95)),
    }
