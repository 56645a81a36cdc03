"""Whole episodes as training data: collected, written as JSON lines and read back.

Command line: ``python -m training.rollouts --count 1000 --seed 0 --output rollouts.jsonl``.
"""

import argparse
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from training.policy import NoisyPlanner, Policy
from training.textcraft import Goal, TextCraft, held_out_goals, train_goals

SPLITS = {"train": train_goals, "held-out": held_out_goals}


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


def roll_out(env: TextCraft, policy: Policy, rng: random.Random, max_steps: int | None = None) -> Rollout:
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
    return Rollout(trajectory, observation, env.outcome, terminated, not terminated, env.goal.item, env.seed)


def collect(
    goals: Sequence[Goal], count: int, seed: int, policy: Policy | None = None, max_steps: int | None = None
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


def monte_carlo_promise(env: TextCraft, policy: Policy, rng: random.Random, rollouts: int) -> float:
    """Share of ``rollouts`` continuations of ``env`` that succeed; ``env`` stays as it is."""
    if env.terminated:
        return env.outcome
    return sum(_continue(env.copy(), policy, rng) for _ in range(rollouts)) / rollouts


def _continue(env: TextCraft, policy: Policy, rng: random.Random) -> float:
    while not env.terminated:
        env.step(policy.sample(env, rng))
    return env.outcome


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Writes one JSON object a line and returns how many; ``path`` appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for rollout in rollouts:
                file.write(json.dumps(asdict(rollout)) + "\n")
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read_rollouts(path: Path) -> list[Rollout]:
    """All rollouts of a file.

    Raises:
        AgentPRMError: a line is not a rollout; names the file, the line and what is wrong.
    """
    rollouts = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rollouts.append(_rollout(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise AgentPRMError(f"{path}, line {number}: not a rollout ({reason})") from error
    return rollouts


def _rollout(row: Any) -> Rollout:
    expected = {field.name for field in fields(Rollout)}
    if not isinstance(row, dict) or row.keys() != expected:
        raise ValueError(f"expected an object with exactly {', '.join(sorted(expected))}")
    written = row["trajectory"]
    steps = tuple(Step(_typed(step, "observation", str), _typed(step, "action", str)) for step in written["steps"])
    rollout = Rollout(
        trajectory=Trajectory(_typed(written, "task", str), steps),
        final_observation=_typed(row, "final_observation", str),
        outcome=float(_typed(row, "outcome", float, int)),
        terminated=_typed(row, "terminated", bool),
        truncated=_typed(row, "truncated", bool),
        goal=_typed(row, "goal", str),
        seed=_typed(row, "seed", int),
    )
    if not 0 <= rollout.outcome <= 1:
        raise ValueError(f"outcome is {rollout.outcome}, not in [0, 1]")
    if rollout.terminated == rollout.truncated:
        raise ValueError("a rollout is either terminated or truncated")
    return rollout


def _typed(row: Any, name: str, *kinds: type) -> Any:
    value = row[name]
    if type(value) not in kinds:
        raise TypeError(f"{name} is {value!r}, not {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.rollouts", description="Collect noisy-planner rollouts.")
    parser.add_argument("--count", type=int, required=True, help="how many rollouts")
    parser.add_argument("--seed", type=int, required=True, help="same seed, same rollouts")
    parser.add_argument("--output", type=Path, required=True, help="the JSON lines file to write")
    parser.add_argument("--split", choices=sorted(SPLITS), default="train", help="which goals")
    arguments = parser.parse_args()
    rollouts = collect(SPLITS[arguments.split](), arguments.count, arguments.seed)
    progress = tqdm(rollouts, total=arguments.count, unit="rollout", mininterval=1)
    write_rollouts(arguments.output, progress)


if __name__ == "__main__":
    main()
