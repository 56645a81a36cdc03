"""The result of a command: one JSON value for programs, lines of text for people."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import typer


class Report(NamedTuple):
    """``data`` is printed with ``--json``, ``text`` without; the command ends with 0 if ``success``, else with 1."""

    data: Any
    text: str
    success: bool = True

    def show(self, *, as_json: bool) -> None:
        """Prints the report. Raises typer.Exit for a command that ends with 1."""
        print(json.dumps(self.data, indent=2, ensure_ascii=False) if as_json else self.text)
        if not self.success:
            raise typer.Exit(1)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
