"""Acting with a judge: at every step the policy proposes N actions and the judge picks one.

Axes: G goals, E episodes.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from agentprm.types import State, Step
from training.environments.base import Policy
from training.environments.textcraft.environment import Goal, TextCraft
from training.evaluation.critic import Critic
from training.evaluation.metrics import Floats

Choose = Callable[[Sequence[State], Sequence[Sequence[str]]], list[str]]
"""Picks one of the proposed actions (duplicates as often as proposed) in each state."""


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


def first(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """The policy alone."""
    return [actions[0] for actions in proposed]


def majority(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """The action proposed most often; ties go to the one proposed first."""
    return [Counter(actions).most_common(1)[0][0] for actions in proposed]


@dataclass(frozen=True, slots=True)
class BestPromise:
    """The action of highest promise + ``count_weight`` * log(how often it was proposed); 0 is the plain argmax.

    A plain argmax over many proposals finds the action that the judge overrates most; the count is the policy's say.
    """

    critic: Critic
    count_weight: float = 0.0

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        counts = [Counter(actions) for actions in proposed]
        promises = self.critic.action_promises(states, [list(counted) for counted in counts])
        return [self._best(counted, scores) for counted, scores in zip(counts, promises, strict=True)]

    def _best(self, counted: Counter[str], promises: list[float]) -> str:
        values = {
            action: promise + self.count_weight * math.log(count)
            for (action, count), promise in zip(counted.items(), promises, strict=True)
        }
        return max(values, key=values.__getitem__)
