"""One episode as training data."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from agentprm.types import Trajectory


@with_config(ConfigDict(strict=True, extra="forbid"))
@dataclass(frozen=True, slots=True)
class Rollout:
    """One episode: terminated by the environment, or truncated by the collector.

    ``final_observation`` is the reply to the last action. ``outcome`` is the terminal reward r(u, tau), 0 if truncated.
    ``goal`` and ``seed`` are what the environment was made from. The annotations validate rollouts read from a file.
    """

    trajectory: Trajectory
    final_observation: str
    outcome: Annotated[float, Field(ge=0, le=1)]
    terminated: bool
    truncated: bool
    goal: str
    seed: int
