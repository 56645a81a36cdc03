"""Plays episodes and collects them as rollouts; estimates promise by Monte Carlo continuations."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from agentprm.types import Step, Trajectory
from training.environments.base import Environment, Policy
from training.environments.textcraft.environment import Goal, TextCraft
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.rollout import Rollout

E = TypeVar("E", bound=Environment)


def roll_out(env: E, policy: Policy[E], rng: random.Random, max_steps: int | None = None) -> Rollout:
    """Resets ``env`` and plays it to its end, or to ``max_steps``: a collector's own cut, which truncates."""
    state = env.reset()
    steps: list[Step] = []
    observation = state.observation
    while not env.terminated and (max_steps is None or len(steps) < max_steps):
        action = policy.sample(env, rng)
        steps.append(Step(observation, action))
        observation = env.step(action).observation
    trajectory = Trajectory(state.task, tuple(steps))
    terminated = env.terminated
    return Rollout(trajectory, observation, env.outcome, terminated, not terminated, env.task_name, env.seed)


def collect(
    goals: Sequence[Goal], count: int, seed: int, policy: Policy[TextCraft] | None = None, max_steps: int | None = None
) -> Iterator[Rollout]:
    """``count`` rollouts, by default of the noisy planner, on goals drawn in shuffled rounds.

    Each depends on ``seed`` and its own number alone, so a longer collection starts with the shorter one.
    """
    policy = policy or NoisyPlanner()
    for number, goal in enumerate(islice(_shuffled_rounds(goals, seed), count)):
        rng = random.Random(f"actions {seed} {number}")
        env = TextCraft(goal, rng.getrandbits(32))
        yield roll_out(env, policy, rng, max_steps)


def _shuffled_rounds(goals: Sequence[Goal], seed: int) -> Iterator[Goal]:
    if not goals:
        raise ValueError("no goals to collect rollouts on")
    rng = random.Random(f"goals {seed}")
    while True:
        yield from rng.sample(goals, len(goals))


def monte_carlo_promise(env: E, policy: Policy[E], rng: random.Random, rollouts: int) -> float:
    """Share of ``rollouts`` continuations of ``env`` that succeed; ``env`` stays as it is."""
    if env.terminated:
        return env.outcome
    return sum(_continue(env.copy(), policy, rng) for _ in range(rollouts)) / rollouts


def _continue(env: E, policy: Policy[E], rng: random.Random) -> float:
    while not env.terminated:
        env.step(policy.sample(env, rng))
    return env.outcome
