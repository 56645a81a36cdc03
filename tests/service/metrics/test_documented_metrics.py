"""docs/metrics.md has a row for every metric, with its type and labels, and no other row."""

import re
from pathlib import Path

from service.metrics import Metrics

ROOT = Path(__file__).parents[3]


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels by metric name, from the rows of the page."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:agentprm|process)_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def registered() -> dict[str, tuple[str, set[str]]]:
    """Type and labels by metric name, from a metrics object with every part connected."""
    metrics = Metrics(["/score_step"], ["/score_step"])
    metrics.add_model("m@1")
    metrics.process.set_model_info("m@1", digest="0", device="cpu", dtype="float32")
    metrics.process.watch_failed_models(lambda: ["m@2"])
    metrics.process.watch_gpu_memory(lambda: {"cuda:0": {"allocated": 1, "reserved": 2, "total": 3}})
    found = {}
    for family in metrics._families.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[f"{family.name}_total" if family.type == "counter" else family.name] = (family.type, labels)
    return found


def test_every_metric_has_its_row_in_the_docs_and_every_row_its_metric() -> None:
    assert documented() == registered()
