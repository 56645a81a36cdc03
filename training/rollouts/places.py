"""Where in which file a trajectory stands, and what is wrong there."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line, row, entry or sample of a file, counted from 1; 0 is the file as a whole."""

    path: Path
    number: int = 0
    unit: str = "line"

    def __str__(self) -> str:
        return str(self.path) if self.number == 0 else f"{self.path}, {self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that cannot be read as it is. ``reason`` is one sentence."""

    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"
