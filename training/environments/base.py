"""The contract of an environment and of a policy that acts in it."""

import random
from typing import NamedTuple, Protocol, Self, TypeVar

from agentprm.types import State


class Reply(NamedTuple):
    """The answer to an action. ``outcome`` in [0, 1] is final once ``terminated`` is true."""

    observation: str
    outcome: float
    terminated: bool


class Environment(Protocol):
    """One episode of one task. The seed decides everything in it that the actions do not."""

    @property
    def task_name(self) -> str:
        """Names the task in rollout files; attempts at the same task share it."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def terminated(self) -> bool:
        """Whether the task has ended the episode."""
        ...

    @property
    def outcome(self) -> float:
        """The terminal reward in [0, 1]; 0 before the end."""
        ...

    def reset(self) -> State:
        """Begins again; returns the task and the first observation."""
        ...

    def step(self, action: str) -> Reply: ...

    def copy(self) -> Self:
        """Returns an episode in the same state that goes on independently."""
        ...


E_contra = TypeVar("E_contra", bound=Environment, contravariant=True)


class Policy(Protocol[E_contra]):
    """Proposes an action in the state of an unfinished episode; ``env`` is read and not changed."""

    def sample(self, env: E_contra, rng: random.Random) -> str: ...
