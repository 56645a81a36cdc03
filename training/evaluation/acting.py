"""Acting with a judge: at every step the policy proposes N actions and a chooser takes one of them.

This is best-of-N at every turn, as in Choudhury's AgentPRM (arXiv 2502.10325). Axes: G goals, E episodes.
"""

import random
from collections.abc import Sequence
from typing import Generic

import numpy as np

from agentprm.search.choosers import Choose
from agentprm.types import State
from training.environments.base import E, EnvironmentFactory, G, Policy
from training.evaluation.metrics import Floats


class _Episode(Generic[E]):
    """An environment under way, its random numbers and the state in which the agent chooses next."""

    __slots__ = ("env", "rng", "state")

    def __init__(self, env: E, rng: random.Random) -> None:
        self.env = env
        self.rng = rng
        self.state = env.reset()

    def take(self, action: str) -> None:
        taken = self.state.take(action)
        self.state = State(taken.task, taken.steps, self.env.step(action).observation)


def act(
    goals: Sequence[G],
    make: EnvironmentFactory[G, E],
    policy: Policy[E],
    choose: Choose,
    *,
    proposals: int,
    episodes: int,
    seed: int,
) -> Floats:
    """Returns the outcome of each episode [G, E] when ``choose`` takes one of ``proposals`` sampled actions a step.

    Episode number e of a goal is made with seed e, and its random numbers follow from ``seed``, the goal and e.
    So two choosers get the same random numbers. Episodes advance together, so that one forward pass judges many.
    """
    played = [_begin(make(goal, number), seed, number) for goal in goals for number in range(episodes)]
    while running := [episode for episode in played if not episode.env.terminated]:
        proposed = [[policy.sample(episode.env, episode.rng) for _ in range(proposals)] for episode in running]
        chosen = choose([episode.state for episode in running], proposed)
        for episode, action in zip(running, chosen, strict=True):
            episode.take(action)
    return np.array([episode.env.outcome for episode in played]).reshape(len(goals), episodes)


def _begin(env: E, seed: int, number: int) -> _Episode[E]:
    return _Episode(env, random.Random(f"{seed} {env.task_name} {number}"))
