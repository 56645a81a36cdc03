"""The options of ``python -m training train``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from training.data.targets import Method
from training.trainers.recipe import FULL_RATE, LORA_RATE, Dtype, Recipe

DEFAULT: Final = Recipe()
_BASE: Final = "Model to train: a directory, org/name@commit, or name@version of the store."
_RATE: Final = f"Peak learning rate. Absent: {FULL_RATE:g}, the paper's, or {LORA_RATE:g} with --lora."
_OUTPUT: Final = "Directory of the run's states. Absent: runs/NAME-VERSION."

Rollouts = Annotated[list[Path], typer.Option(help="Rollout files, or directories that are searched for them.")]
BaseSource = Annotated[str, typer.Option(help=_BASE)]
Name = Annotated[str, typer.Option(help="Name of the new checkpoint.")]
Version = Annotated[str, typer.Option(help="Its version; a published version never changes.")]
StorePath = Annotated[Path, typer.Option(help="Directory of the store to publish to.")]
LabelMethod = Annotated[Method, typer.Option(help="What promises are trained towards (docs/training.md).")]
Gamma = Annotated[float, typer.Option(min=0, max=1, help="Discount; 1 keeps a promise a chance of success.")]
Lam = Annotated[float, typer.Option(min=0, max=1, help="Lambda of GAE, for td-gae and no-progress.")]
WarmUp = Annotated[float, typer.Option(min=0, max=1, help="Share of the updates over which lambda falls from 1.")]
Beta = Annotated[float | None, typer.Option(min=0, help="Weight of the progress loss. Absent: 1 for td-gae and mc.")]
Lora = Annotated[int | None, typer.Option(min=1, help="Rank of a LoRA adapter. Absent: the whole model is trained.")]
Rate = Annotated[float | None, typer.Option("--lr", min=0, help=_RATE)]
Epochs = Annotated[int, typer.Option(min=1, help="Most passes over the data.")]
Patience = Annotated[int, typer.Option(min=1, help="Epochs below the best validation AUC before training stops.")]
PerUpdate = Annotated[int, typer.Option(min=1, help="Tokens of whole trajectories that an optimiser step learns from.")]
PerForward = Annotated[int, typer.Option(min=1, help="Tokens of a forward: this decides the memory, and nothing else.")]
Arithmetic = Annotated[Dtype, typer.Option(help="Arithmetic of the backbone; the head is float32.")]
Recompute = Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory for a third more time.")]
HeldOutShare = Annotated[float, typer.Option(min=0, max=0.9, help="Share of the queries that are only measured on.")]
Seed = Annotated[int, typer.Option(help="Decides the split, the order of the data and the adapter's start.")]
Context = Annotated[int | None, typer.Option(min=1, help="Most tokens of a trajectory. Absent: as the base reads.")]
SkipTooLong = Annotated[bool, typer.Option("--skip-too-long", help="Leave out trajectories that are too long.")]
AsAdapter = Annotated[bool, typer.Option("--as-adapter", help="With --lora: publish the adapter beside its base.")]
Tasks = Annotated[str, typer.Option(help="The agent's tasks in a few words; /models shows them as trained_on.")]
Output = Annotated[Path | None, typer.Option(help=_OUTPUT)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the newest state of a run that was ended.")]
Track = Annotated[str | None, typer.Option(help="Tracker of the metrics: tensorboard, wandb, mlflow or others.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate memory and time, and train nothing.")]
