"""Plays episodes and collects them as rollouts; estimates promise by Monte Carlo continuations."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from agentprm.types import Step, Trajectory
from training.environments.base import E, EnvironmentFactory, G, Policy
from training.rollouts.rollout import Rollout


def roll_out(env: E, policy: Policy[E], rng: random.Random, max_steps: int | None = None) -> Rollout:
    """Resets ``env`` and plays it to its end, or truncates it after ``max_steps``."""
    state = env.reset()
    steps: list[Step] = []
    observation = state.observation
    while not env.terminated and (max_steps is None or len(steps) < max_steps):
        action = policy.sample(env, rng)
        steps.append(Step(observation, action))
        observation = env.step(action).observation
    trajectory = Trajectory(state.task, tuple(steps))
    return Rollout(trajectory, env.outcome, not env.terminated, env.task_name, observation, metadata={"seed": env.seed})


def collect(
    goals: Sequence[G],
    make: EnvironmentFactory[G, E],
    policy: Policy[E],
    *,
    count: int,
    seed: int,
    max_steps: int | None = None,
) -> Iterator[Rollout]:
    """Yields ``count`` rollouts. Every round visits all goals once, in a new random order.

    Each rollout depends on ``seed`` and its own number alone, so a longer collection starts with the shorter one.

    Raises:
        ValueError: there are no goals.
    """
    for number, goal in enumerate(islice(_shuffled_rounds(goals, seed), count)):
        rng = random.Random(f"actions {seed} {number}")
        env = make(goal, rng.getrandbits(32))
        yield roll_out(env, policy, rng, max_steps)


def _shuffled_rounds(goals: Sequence[G], seed: int) -> Iterator[G]:
    if not goals:
        raise ValueError("no goals to collect rollouts on")
    rng = random.Random(f"goals {seed}")
    while True:
        yield from rng.sample(goals, len(goals))


def monte_carlo_promise(env: E, policy: Policy[E], rng: random.Random, rollouts: int) -> float:
    """Returns the mean outcome of ``rollouts`` continuations of ``env``, which is not changed.

    It estimates the value of the state that the last action led to (AgentPRM, eq. 3), which is that action's promise
    (eq. 2): transitions are deterministic and only the end is rewarded. An ended episode's is its outcome.
    """
    if env.terminated:
        return env.outcome
    return sum(_continue(env.copy(), policy, rng) for _ in range(rollouts)) / rollouts


def _continue(env: E, policy: Policy[E], rng: random.Random) -> float:
    while not env.terminated:
        env.step(policy.sample(env, rng))
    return env.outcome
