"""Markdown tables, and results as JSON files."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def write_json(path: Path, document: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Result:
    document: Result = json.loads(path.read_text(encoding="utf-8"))
    return document


def conditions_line(conditions: Result) -> str:
    """Returns the conditions of a measurement as one line of text."""
    load = ", ".join(f"{value:.1f}" for value in conditions["load_average"])
    return (
        f"{conditions['cpu']}, {conditions['cores']} cores, {conditions['torch_threads']} torch thread, load {load}; "
        f"torch {conditions['torch']}, transformers {conditions['transformers']}, Python {conditions['python']}; "
        f"commit {conditions['commit'][:12]}{' with changes' * conditions['uncommitted_changes']}, "
        f"{conditions['date']}, sizes: {conditions['sizes']}, {conditions['rounds']} rounds.\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ratio(ratio: Result) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})"


def milliseconds(wall: Result, digits: int = 1) -> str:
    shown = " / ".join(f"{wall[share]:.{digits}f}" for share in ("p50", "p95", "p99"))
    return f"{shown} (n={wall['samples']})"


def equality(result: Result) -> str:
    return f"Scores {'equal' if result['equal'] else 'DIFFER'} (max diff {result['max_diff']:.1e})."


def spread(values: Sequence[float], digits: int = 0) -> str:
    shown = [f"{value:.{digits}f}" for value in (min(values), max(values))]
    return "-".join(dict.fromkeys(shown))


def p50_and_p95(wall: Result) -> str:
    return f"{wall['p50']:.1f} / {wall['p95']:.1f} (n={wall['samples']})"
