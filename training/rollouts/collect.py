"""Plays episodes and collects them as rollouts; estimates promise by Monte Carlo continuations."""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from statistics import fmean

from agentprm.types import Step, Trajectory
from training.environments.base import E, EnvironmentFactory, G, Policy
from training.rollouts.rollout import Rollout


def roll_out(
    env: E,
    policy: Policy[E],
    rng: random.Random,
    max_steps: int | None = None,
    *,
    after_step: Callable[[E], tuple[float, ...]] | None = None,
) -> Rollout:
    """Resets ``env`` and plays it to its end, or truncates it after ``max_steps``.

    ``after_step`` gives the continuations of each step from the episode as the step left it, which it does not change.
    """
    state = env.reset()
    steps: list[Step] = []
    continuations: list[tuple[float, ...]] = []
    observation = state.observation
    while not env.terminated and (max_steps is None or len(steps) < max_steps):
        action = policy.sample(env, rng)
        steps.append(Step(observation, action))
        observation = env.step(action).observation
        if after_step:
            continuations.append(after_step(env))
    return Rollout(
        Trajectory(state.task, tuple(steps)),
        env.outcome,
        not env.terminated,
        env.task_name,
        observation,
        continuations=tuple(continuations),
        metadata={"seed": env.seed},
    )


def collect(
    goals: Sequence[G],
    make: EnvironmentFactory[G, E],
    policy: Policy[E],
    *,
    count: int,
    seed: int,
    max_steps: int | None = None,
    continuations: int = 0,
) -> Iterator[Rollout]:
    """Yields ``count`` rollouts. Every round visits all goals once, in a new random order.

    ``continuations`` is how many are played on after each step; the rollouts are the same with and without.
    Each rollout depends on ``seed`` and its own number alone, so a longer collection starts with the shorter one.

    Raises:
        ValueError: there are no goals.
    """
    for number, goal in enumerate(islice(_shuffled_rounds(goals, seed), count)):
        rng = random.Random(f"actions {seed} {number}")
        env = make(goal, rng.getrandbits(32))
        beside = random.Random(f"continuations {seed} {number}")
        after_step = (
            partial(continue_from, policy=policy, rng=beside, rollouts=continuations) if continuations else None
        )
        yield roll_out(env, policy, rng, max_steps, after_step=after_step)


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
    return fmean(continue_from(env, policy=policy, rng=rng, rollouts=rollouts))


def continue_from(env: E, *, policy: Policy[E], rng: random.Random, rollouts: int) -> tuple[float, ...]:
    """Returns the outcomes of so many continuations of ``env``, which is not changed; of an ended episode its own."""
    if env.terminated:
        return (env.outcome,)
    return tuple(_continue(env.copy(), policy, rng) for _ in range(rollouts))


def _continue(env: E, policy: Policy[E], rng: random.Random) -> float:
    while not env.terminated:
        env.step(policy.sample(env, rng))
    return env.outcome
