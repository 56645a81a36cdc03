"""``python -m training train``: from rollout files to a checkpoint of a store."""

from pathlib import Path

from model_store.format.store import Store
from training.commands import train_options as option
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.commands.train_options import DEFAULT
from training.data.targets import Labels
from training.estimate import estimate
from training.evaluation.held_out import as_text
from training.rollouts.formats import AUTO
from training.rollouts.reading import read
from training.run import Run, run
from training.trainers.recipe import Recipe
from training.trainers.tracking import accelerator_of


def train(
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    rollouts: option.Rollouts,
    base: option.BaseSource,
    name: option.Name,
    version: option.Version,
    store: option.StorePath = Path("checkpoints"),
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    labels: option.LabelMethod = DEFAULT.labels.method,
    gamma: option.Gamma = DEFAULT.labels.gamma,
    lam: option.Lam = DEFAULT.labels.lam,
    lam_warm_up: option.WarmUp = DEFAULT.labels.lam_warm_up,
    beta: option.Beta = None,
    lora: option.Lora = None,
    learning_rate: option.Rate = None,
    epochs: option.Epochs = DEFAULT.epochs,
    patience: option.Patience = DEFAULT.patience,
    tokens_per_update: option.PerUpdate = DEFAULT.tokens_per_update,
    tokens_per_forward: option.PerForward = DEFAULT.tokens_per_forward,
    dtype: option.Arithmetic = DEFAULT.dtype,
    gradient_checkpointing: option.Recompute = False,
    held_out: option.HeldOutShare = 0.1,
    seed: option.Seed = DEFAULT.seed,
    context_length: option.Context = None,
    skip_too_long: option.SkipTooLong = False,
    as_adapter: option.AsAdapter = False,
    tasks: option.Tasks = "",
    output: option.Output = None,
    resume: option.Resume = False,
    track: option.Track = None,
    dry_run: option.DryRun = False,
) -> None:
    """Train a process reward model from rollouts, and publish it with its figures on held-out queries."""
    how = Labels(method=labels, gamma=gamma, lam=lam, lam_warm_up=lam_warm_up)
    recipe = Recipe(labels=how, beta=beta, lora=lora, learning_rate=learning_rate, epochs=epochs, patience=patience,
        tokens_per_update=tokens_per_update, tokens_per_forward=tokens_per_forward, dtype=dtype,
        gradient_checkpointing=gradient_checkpointing, seed=seed)  # fmt: skip
    plan = Run(base=base, store=Store(store), name=name, version=version, recipe=recipe, held_out=held_out,
        output=output or Path("runs", f"{name}-{version}"), context_length=context_length, skip_too_long=skip_too_long,
        as_adapter=as_adapter, resume=resume, tasks=tasks)  # fmt: skip
    start(plan, rollouts, format, track, dry_run=dry_run)


def start(plan: Run, paths: list[Path], format: str, track: str | None, *, dry_run: bool) -> None:  # noqa: A002
    """Reads the files, and trains or estimates; prints notes on the data and what came of it."""
    reading = read(paths, format)
    rollouts = reading.whole()
    if dry_run:
        print(estimate(plan, rollouts))
        return
    accelerator = accelerator_of(track, plan.output, plan.recipe)
    for note in reading.notes:
        accelerator.print(f"note: {note}")
    ended = run(plan, rollouts, accelerator)
    accelerator.end_training()
    if ended:
        print(as_text(ended.figures))
        print(f"published {ended.checkpoint.manifest.reference}, {ended.checkpoint.path / 'report.html'}")
