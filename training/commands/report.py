"""``python -m training report``: the page of a published checkpoint."""

from pathlib import Path

from agentprm.errors import AgentPRMError
from model_store.format.store import Store
from training.commands.checkpoint_options import Out, Reference, StorePath
from training.commands.config_file import ConfigOption
from training.evaluation.report_page import report_page


def report(
    reference: Reference,
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    store: StorePath = Path("checkpoints"),
    out: Out = Path("report.html"),
) -> None:
    """Write the page of a checkpoint again from the figures in its manifest."""
    manifest = Store(store).resolve(reference).manifest
    if manifest.evaluation and "step_auc" not in manifest.evaluation:
        raise AgentPRMError(f"{manifest.reference} was not measured by `train`; `evaluate --report` measures it")
    out.write_text(report_page(manifest.evaluation, manifest.training, manifest.reference), encoding="utf-8")
    print(out)
