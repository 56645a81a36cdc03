"""``python -m training report``: the page of a published checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from model_store.format.store import Store
from training.commands.checkpoint_options import Reference, StorePath
from training.commands.config_file import ConfigOption
from training.evaluation.report_page import report_page


def report(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    store: StorePath = Path("checkpoints"),
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
) -> None:
    """Write the page of a checkpoint again from the figures in its manifest."""
    manifest = Store(store).resolve(reference).manifest
    out.write_text(report_page(manifest.evaluation, manifest.training, manifest.reference), encoding="utf-8")
    print(out)
