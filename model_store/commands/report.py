"""What a command found: one JSON value for programs, lines of text for people."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Report(NamedTuple):
    """``fine``: whether the command ends with 0."""

    data: Any
    text: str
    fine: bool = True


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first row as the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
