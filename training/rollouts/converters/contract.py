"""What a converter is: functions that say which records are its own, and what line each part of one is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentprm.errors import InvalidRequest

Fields = dict[str, Any]
"""A JSON object: a record of a file, or the fields of a line of ``agentprm.rollouts``."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that is no rollout, such as one that a server's failure ended. ``reason`` says it of several runs."""

    reason: str


def whole(record: Fields) -> Iterable[Fields]:
    """Returns the record as its only part."""
    return (record,)


def objects(record: Fields, name: str) -> list[Fields]:
    """Returns the list of objects in a field. Raises InvalidRequest if it holds anything else."""
    held = record.get(name)
    if not isinstance(held, list) or not all(isinstance(each, dict) for each in held):
        raise InvalidRequest(f"{name} must be a list of objects")
    return held


@dataclass(frozen=True, slots=True)
class Converter:
    """How one project's records become lines.

    Attributes:
        name: as it is given to ``--format``.
        recognises: returns whether a record is one of this project, by the names of its fields.
        line: returns the fields of a part's line; the second argument is the file that holds it. It raises
            pydantic's ValidationError or InvalidRequest where the part is not as the project writes it.
        parts: returns the runs in a record; each becomes a line.
        unit: what a part is called in messages.
    """

    name: str
    recognises: Callable[[Fields], bool]
    line: Callable[[Fields, Path], Fields | LeftOut]
    parts: Callable[[Fields], Iterable[Fields]] = whole
    unit: str = "entry"
