"""``python -m training.rollouts --count 1000 --seed 0 --output rollouts.jsonl`` collects noisy-planner rollouts."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from tqdm import tqdm

from training.environments.textcraft.environment import TextCraft, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect
from training.rollouts.files import write_rollouts

GOALS: Final = {"train": train_goals, "held-out": held_out_goals}

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


@app.command()
def main(
    count: Annotated[int, typer.Option(help="Number of rollouts.")],
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same rollouts.")],
    output: Annotated[Path, typer.Option(help="JSON lines file to write.")],
    split: Annotated[Literal["held-out", "train"], typer.Option(help="Goals to play.")] = "train",
) -> None:
    """Collect noisy-planner rollouts."""
    rollouts = collect(GOALS[split](), TextCraft, NoisyPlanner(), count=count, seed=seed)
    write_rollouts(output, tqdm(rollouts, total=count, unit="rollout", mininterval=1))


if __name__ == "__main__":
    app(prog_name="python -m training.rollouts")
