"""One episode."""

from dataclasses import dataclass

from agentprm.types import Trajectory


@dataclass(frozen=True, slots=True)
class Rollout:
    """One episode. ``final_observation`` is the reply to the last action; ``outcome`` is 0 where ``truncated``."""

    trajectory: Trajectory
    final_observation: str
    outcome: float
    terminated: bool
    truncated: bool
    goal: str
    seed: int
