"""``python -m training calibrate``: a new version of a checkpoint whose promises are the shares that succeed."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer

from agentprm.errors import AgentPRMError
from model_store.format.manifest import Manifest
from model_store.format.store import MANIFEST, Checkpoint, Store
from training.commands.checkpoint_options import HeldOutOnly, Plot, Reference, Rollouts, StorePath
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.commands.train_options import SkipTooLong
from training.evaluation import calibration
from training.evaluation.calibration import Calibrated, Method, labelled, unseen_promises
from training.evaluation.held_out import measure
from training.evaluation.plots import reliability_plot
from training.evaluation.report_page import report_page
from training.evaluation.untrained import ScoredUntrained, scored_untrained
from training.rollouts.formats import AUTO
from training.rollouts.lines import data_digest
from training.rollouts.reading import read

REPORT: Final = "report.html"


def calibrate(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    rollouts: Rollouts,
    version: Annotated[str, typer.Option(help="Version of the calibrated checkpoint.")],
    store: StorePath = Path("checkpoints"),
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    held_out_only: HeldOutOnly = False,
    skip_too_long: SkipTooLong = False,
    method: Annotated[Method, typer.Option(help="Which map; isotonic needs a thousand steps or more.")] = "platt",
    plot: Plot = None,
) -> None:
    """Fit the map from raw scores to promises on labelled steps, and publish it as a new version.

    Labels are those of the steps, or else outcomes. Before and after are measured on queries that the map was not
    fitted on; a map with a worse calibration error is not published. Of the very rollouts that the checkpoint was
    trained on, the held-out queries are used alone.
    """
    target = Store(store)
    checkpoint = target.resolve(reference)
    target.free_path(checkpoint.manifest.name, version)
    reading = read(rollouts, format)
    given = scored_untrained(checkpoint, reading.whole(), held_out_only=held_out_only, skip_too_long=skip_too_long)
    for note in (*reading.notes, *given.notes):
        print(note)
    found = calibration.calibrate(checkpoint.manifest.score, labelled(given.rollouts, given.raw), method)
    print(_as_text(found))
    if plot:
        series = {"before": found.before.reliability, "after": found.after.reliability}
        plot.write_text(reliability_plot({name: [asdict(b) for b in bins] for name, bins in series.items()}), "utf-8")
    if (found.after.ece.value or 0) > (found.before.ece.value or 0):
        raise AgentPRMError(f"nothing is published: {method} has the larger calibration error on other queries")
    record = {"method": method, "of": checkpoint.manifest.reference, "data": data_digest(reading.rollouts)}
    manifest = replace(_manifest(checkpoint.manifest, found, given, record), version=version)
    print(f"published {_publish(target, checkpoint, manifest).manifest.reference}")


def _as_text(found: Calibrated) -> str:
    return "\n".join(
        [
            f"{found.steps} labelled steps of {found.queries} queries",
            f"ECE    before {found.before.ece}   after {found.after.ece}",
            f"Brier  before {found.before.brier}   after {found.after.brier}",
        ]
    )


def _manifest(manifest: Manifest, found: Calibrated, given: ScoredUntrained, record: dict[str, Any]) -> Manifest:
    """The manifest with the new recipe, a record of how it was fitted, and the figures of the new promises.

    Each query is measured by the map that was fitted without it.
    """
    promises = unseen_promises(found, given.rollouts, given.raw)
    figures = measure(given.rollouts, promises, trained_on=given.trained_on)
    record = record | {"steps": found.steps, "queries": found.queries}
    for name, quality in (("before", found.before), ("after", found.after)):
        record[name] = {"ece": quality.ece.value, "brier": quality.brier.value}
    return replace(
        manifest,
        score=found.score,
        training={**manifest.training, "calibration": record},
        evaluation=figures.to_json(),
        check=None,
        digest="",
    )


def _publish(store: Store, checkpoint: Checkpoint, manifest: Manifest) -> Checkpoint:
    """The same files under a new manifest, with a page of its figures."""
    with TemporaryDirectory(dir=store.root, prefix=".calibrate-") as directory:
        staged = Path(directory) / "checkpoint"
        shutil.copytree(checkpoint.path, staged, ignore=shutil.ignore_patterns(MANIFEST, REPORT))
        page = report_page(manifest.evaluation, manifest.training, manifest.reference)
        (staged / REPORT).write_text(page, encoding="utf-8")
        return store.publish(staged, manifest)
