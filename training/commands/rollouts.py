"""``python -m training rollouts``."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm import tqdm

from training.commands.config_file import ConfigOption
from training.environments.registry import WorldName, load_world
from training.rollouts.collect import collect
from training.rollouts.files import write_rollouts


def rollouts(
    *,
    environment: Annotated[WorldName, typer.Option(help="World to play in; docs/environments.md describes each.")],
    count: Annotated[int, typer.Option(min=1, help="Number of rollouts.")],
    out: Annotated[Path, typer.Option(help="JSON lines file to write; it appears whole or not at all.")],
    config: ConfigOption = None,  # noqa: ARG001
    split: Annotated[Literal["train", "held-out"], typer.Option(help="Goals to play; no goal is in both.")] = "train",
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same rollouts.")] = 0,
    attempts_per_query: Annotated[
        int | None, typer.Option(min=1, help="Attempts at each goal played. Default: every goal before any again.")
    ] = None,
    continuations: Annotated[
        int, typer.Option(min=0, help="Continuations played on after every step, for Monte Carlo labels.")
    ] = 0,
) -> None:
    """Play episodes of a world with its noisy policy and write them as a rollout file.

    All attempts at a goal have the same query, so that a split keeps them together and best-of-N chooses among them.
    """
    world = load_world(environment)
    goals = world.train_goals() if split == "train" else world.held_out_goals()
    played = goals if attempts_per_query is None else _sample(goals, count, attempts_per_query, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    episodes = collect(played, world.make, world.policy, count=count, seed=seed, continuations=continuations)
    write_rollouts(out, tqdm(episodes, total=count, unit="rollout", mininterval=1))


def _sample(goals: Sequence[Any], count: int, attempts: int, seed: int) -> Sequence[Any]:
    """Returns as many goals as make ``count`` rollouts with so many attempts at each."""
    number, rest = divmod(count, attempts)
    if rest:
        raise typer.BadParameter(f"--count {count} is no multiple of --attempts-per-query {attempts}")
    if number > len(goals):
        raise typer.BadParameter(
            f"--count {count} takes {number} goals with {attempts} attempts; there are {len(goals)}"
        )
    return random.Random(f"queries {seed}").sample(goals, number)
