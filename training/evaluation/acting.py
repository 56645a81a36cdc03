"""Acting with a judge: at every step the policy proposes N actions and the judge picks one.

Axes: G goals, E episodes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from agentprm.search.choosers import Choose
from agentprm.types import State, Step
from training.environments.base import Policy
from training.environments.textcraft.environment import Goal, TextCraft
from training.evaluation.metrics import Floats


@dataclass(slots=True)
class _Episode:
    env: TextCraft
    rng: random.Random
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.env.reset()

    def take(self, action: str) -> None:
        step = Step(self.state.observation, action)
        self.state = State(self.state.task, (*self.state.steps, step), self.env.step(action).observation)


def act(
    goals: Sequence[Goal], policy: Policy[TextCraft], choose: Choose, *, proposals: int, episodes: int, seed: int
) -> Floats:
    """Outcome of each episode [G, E] when ``choose`` picks one of ``proposals`` sampled actions at every step.

    An episode's recipes and random numbers follow from ``seed``, its goal and its number, whoever chooses: two
    choosers meet the same luck. Episodes advance together so that one forward judges many of them.
    """
    played = [
        _Episode(TextCraft(goal, seed=number), random.Random(f"{seed} {goal.item} {number}"))
        for goal in goals
        for number in range(episodes)
    ]
    while running := [episode for episode in played if not episode.env.terminated]:
        proposed = [[policy.sample(one.env, one.rng) for _ in range(proposals)] for one in running]
        chosen = choose([one.state for one in running], proposed)
        for episode, action in zip(running, chosen, strict=True):
            episode.take(action)
    return np.array([episode.env.outcome for episode in played]).reshape(len(goals), episodes)
