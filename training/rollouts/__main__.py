"""``python -m training.rollouts --count 1000 --seed 0 --output rollouts.jsonl`` collects noisy-planner rollouts."""

import argparse
from pathlib import Path

from tqdm import tqdm

from training.environments.textcraft.environment import held_out_goals, train_goals
from training.rollouts.collect import collect
from training.rollouts.files import write_rollouts

SPLITS = {"train": train_goals, "held-out": held_out_goals}


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
