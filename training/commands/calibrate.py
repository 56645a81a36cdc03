"""``python -m training calibrate``: a new version of a checkpoint whose promises are the shares that succeed."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from agentprm.errors import AgentPRMError
from model_store.format.store import MANIFEST, Checkpoint, Store
from training.commands.checkpoint_options import Reference, Rollouts, StorePath
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.evaluation import calibration
from training.evaluation.calibration import Calibrated, Method, labelled
from training.evaluation.plots import reliability_plot
from training.evaluation.scoring import raw_of
from training.rollouts.formats import AUTO
from training.rollouts.reading import read


def calibrate(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    rollouts: Rollouts,
    version: Annotated[str, typer.Option(help="Version of the calibrated checkpoint.")],
    store: StorePath = Path("checkpoints"),
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    method: Annotated[Method, typer.Option(help="Which map; isotonic needs a thousand steps or more.")] = "platt",
    plot: Annotated[Path | None, typer.Option(help="Write a reliability plot (SVG) to this file.")] = None,
) -> None:
    """Fit the map from raw scores to promises on labelled steps, and publish it as a new version.

    Labels are those of the steps, or else outcomes. Before and after are measured on queries that the map was not
    fitted on; a map with a worse calibration error is not published.
    """
    target = Store(store)
    checkpoint = target.resolve(reference)
    target.free_path(checkpoint.manifest.name, version)
    attempts = read(rollouts, format).whole()
    found = calibration.calibrate(checkpoint.manifest.score, labelled(attempts, raw_of(checkpoint, attempts)), method)
    print(_as_text(found))
    if plot:
        series = {"before": found.before.reliability, "after": found.after.reliability}
        plot.write_text(reliability_plot({name: [asdict(b) for b in bins] for name, bins in series.items()}), "utf-8")
    if (found.after.ece.value or 0) > (found.before.ece.value or 0):
        raise AgentPRMError(f"nothing is published: {method} has the larger calibration error on other queries")
    print(f"published {_publish(target, checkpoint, version, found, method).manifest.reference}")


def _as_text(found: Calibrated) -> str:
    return "\n".join(
        [
            f"{found.steps} labelled steps of {found.queries} queries",
            f"ECE    before {found.before.ece}   after {found.after.ece}",
            f"Brier  before {found.before.brier}   after {found.after.brier}",
        ]
    )


def _publish(store: Store, checkpoint: Checkpoint, version: str, found: Calibrated, method: Method) -> Checkpoint:
    """The same files under a manifest with the new recipe and a record of how it was fitted."""
    quality = {"before": {"ece": found.before.ece.value, "brier": found.before.brier.value}}
    quality["after"] = {"ece": found.after.ece.value, "brier": found.after.brier.value}
    record = {"method": method, "of": checkpoint.manifest.reference, "steps": found.steps, "queries": found.queries}
    manifest = replace(
        checkpoint.manifest,
        version=version,
        score=found.score,
        training={**checkpoint.manifest.training, "calibration": record | quality},
        check=None,
        digest="",
    )
    with TemporaryDirectory(dir=store.root, prefix=".calibrate-") as directory:
        staged = Path(directory) / "checkpoint"
        shutil.copytree(checkpoint.path, staged, ignore=shutil.ignore_patterns(MANIFEST))
        return store.publish(staged, manifest)
