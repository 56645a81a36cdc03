"""``python -m training evaluate``: a checkpoint's figures on rollouts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from model_store.format.store import Store
from training.commands.checkpoint_options import HeldOutOnly, Json, Page, Reference, Rollouts, StorePath
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.commands.train_options import SkipTooLong
from training.evaluation.held_out import as_text, measure
from training.evaluation.report_page import report_page
from training.evaluation.scoring import promises_of, scored
from training.evaluation.untrained import scored_untrained
from training.rollouts.formats import AUTO
from training.rollouts.reading import read
from training.rollouts.rollout import Rollout


def evaluate(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    rollouts: Rollouts,
    store: StorePath = Path("checkpoints"),
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    held_out_only: HeldOutOnly = False,
    skip_too_long: SkipTooLong = False,
    orm: Annotated[
        str | None, typer.Option(help="An outcome model of the store, compared with where queries have attempts.")
    ] = None,
    as_json: Json = None,
    report: Page = None,
) -> None:
    """Measure a checkpoint on rollouts: AUC, calibration and best of N, with intervals over queries.

    Of the very rollouts that it was trained on, the held-out queries are measured alone.
    """
    checkpoint = Store(store).resolve(reference)
    manifest = checkpoint.manifest
    reading = read(rollouts, format)
    found = scored_untrained(checkpoint, reading.whole(), held_out_only=held_out_only, skip_too_long=skip_too_long)
    others = _promises(Store(store), orm, found.rollouts) if orm is not None else None
    promises = promises_of(found.raw, manifest.score.promise)
    figures = measure(found.rollouts, promises, orm=others, trained_on=found.trained_on)
    print(*reading.notes, *found.notes, as_text(figures), sep="\n")
    if as_json:
        as_json.write_text(json.dumps(figures.to_json(), indent=2) + "\n", encoding="utf-8")
    if report:
        page = report_page(figures.to_json(), manifest.training, manifest.reference)
        report.write_text(page, encoding="utf-8")


def _promises(store: Store, reference: str, rollouts: list[Rollout]) -> list[list[float]]:
    checkpoint = store.resolve(reference)
    return promises_of(scored(checkpoint, rollouts).raw, checkpoint.manifest.score.promise)
