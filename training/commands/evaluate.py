"""``python -m training evaluate``: a checkpoint's figures on rollouts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from model_store.format.manifest import Manifest
from model_store.format.store import Store
from training.commands.checkpoint_options import Reference, Rollouts, StorePath
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.data.splits import split
from training.evaluation.held_out import as_text, measure
from training.evaluation.report_page import report_page
from training.evaluation.scoring import promises_of, raw_of
from training.rollouts.formats import AUTO
from training.rollouts.lines import data_digest
from training.rollouts.reading import read
from training.rollouts.rollout import Rollout


def evaluate(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    rollouts: Rollouts,
    store: StorePath = Path("checkpoints"),
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    orm: Annotated[
        str | None, typer.Option(help="An outcome model of the store, compared with where queries have attempts.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
) -> None:
    """Measure a checkpoint on rollouts: AUC, calibration and best of N, with intervals over queries.

    Of the very rollouts that it was trained on, the held-out queries are measured alone.
    """
    checkpoint = Store(store).resolve(reference)
    chosen, trained_on = _held_out(checkpoint.manifest, read(rollouts, format).whole())
    promises = promises_of(raw_of(checkpoint, chosen), checkpoint.manifest.score.promise)
    others = None
    if orm is not None:
        outcome_model = Store(store).resolve(orm)
        others = promises_of(raw_of(outcome_model, chosen), outcome_model.manifest.score.promise)
    figures = measure(chosen, promises, orm=others, trained_on=trained_on)
    print(as_text(figures))
    if as_json:
        as_json.write_text(json.dumps(figures.to_json(), indent=2) + "\n", encoding="utf-8")
    if report:
        page = report_page(figures.to_json(), checkpoint.manifest.training, checkpoint.manifest.reference)
        report.write_text(page, encoding="utf-8")


def _held_out(manifest: Manifest, rollouts: list[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
    """The rollouts to measure, and those that the checkpoint was trained on, if the files are those of its training."""
    data, how = manifest.training.get("data"), manifest.training.get("split")
    if not isinstance(data, dict) or not isinstance(how, dict) or data.get("digest") != data_digest(rollouts):
        return rollouts, []
    parts = split(rollouts, how["held_out"], how["seed"])
    print(
        f"{manifest.reference} was trained on these files: its {len(parts.held_out)} held-out trajectories are measured"
    )
    return parts.held_out, parts.train
