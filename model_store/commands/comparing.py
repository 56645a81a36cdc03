"""The authors' numbers beside the scores here, for programs and for people."""

from typing import Any

from model_store.commands.report import Report, table
from model_store.importers.check import Comparison


def comparison_report(comparison: Comparison) -> Report:
    """Returns every compared step; it is no success if one disagrees."""
    steps: list[dict[str, Any]] = [
        {
            "item": step.item,
            "step": step.step,
            "measure": step.measure,
            "authors": step.authors,
            "ours": step.ours,
            "difference": step.difference,
            "ok": step.ok,
        }
        for step in comparison.steps
    ]
    data = {
        "agrees": comparison.agrees,
        "tolerance": comparison.tolerance,
        "largest_difference": comparison.largest_difference,
        "items": comparison.items,
        "steps": steps,
    }
    return Report(data, f"{_table(comparison)}\n{comparison.in_words()}", comparison.agrees)


def _table(comparison: Comparison) -> str:
    rows = [("item", "step", "", "authors' number", "ours", "difference", "ok")]
    for step in comparison.steps:
        numbers = (f"{step.authors:.5g}", f"{step.ours:.5g}", f"{step.difference:.2g}")
        rows.append((str(step.item), str(step.step), step.measure, *numbers, "yes" if step.ok else "NO"))
    return table(rows)
