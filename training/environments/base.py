"""The contracts of an environment, of the factory that makes its episodes and of a policy that acts in it.

Rollouts and evaluation know these contracts only. A goal is whatever the factory takes; for TextCraft, an item.
"""

import random
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from agentprm.types import State


class Reply(NamedTuple):
    """The answer to an action. ``outcome`` in [0, 1] is final once ``terminated`` is true."""

    observation: str
    outcome: float
    terminated: bool


class Environment(Protocol):
    """One episode of one goal. The seed decides everything in it that the actions do not."""

    @property
    def task_name(self) -> str:
        """Name of the goal in rollout files and random seeds; attempts at the same goal share it."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def terminated(self) -> bool:
        """True once the task has ended the episode."""
        ...

    @property
    def outcome(self) -> float:
        """The terminal reward in [0, 1]; 0 before the end."""
        ...

    def reset(self) -> State:
        """Begins the same episode again and returns its task and first observation."""
        ...

    def step(self, action: str) -> Reply:
        """Takes one action of an unfinished episode."""
        ...

    def copy(self) -> Self:
        """Returns an episode in the same state that goes on independently."""
        ...


G = TypeVar("G")
E = TypeVar("E", bound=Environment)
E_contra = TypeVar("E_contra", bound=Environment, contravariant=True)

EnvironmentFactory = Callable[[G, int], E]
"""Makes a new episode from a goal and a seed; an environment's own class often is one."""


class Policy(Protocol[E_contra]):
    """Proposes an action in the state of an unfinished episode; reads ``env`` and does not change it."""

    def sample(self, env: E_contra, rng: random.Random) -> str: ...


class World(NamedTuple, Generic[G, E]):
    """An environment with its goals and the policy that makes its rollouts. No goal is in both splits."""

    train_goals: Callable[[], Sequence[G]]
    held_out_goals: Callable[[], Sequence[G]]
    make: EnvironmentFactory[G, E]
    policy: Policy[E]
