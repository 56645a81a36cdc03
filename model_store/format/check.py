"""Scores that a checkpoint's authors compute, as a file for ``--check`` holds them, and the outcome in the manifest.

docs/published.md shows a file.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import GetPydanticSchema, TypeAdapter, with_config
from pydantic_core.core_schema import custom_error_schema

from model_store.errors import CheckpointError, ManifestInvalid
from model_store.format.json_files import read_json
from model_store.format.validation import NOT_NULL, STRICT, read_strictly

TOLERANCE: Final = 1e-3
"""Default tolerance: authors print few digits, and many compute in bfloat16."""
HISTORY: Final = ("task", "steps", "messages", "tools")
"""Fields of a check item that hold what is scored; the others hold the authors' numbers."""
Objects = tuple[dict[str, Any], ...]
Numbers = Annotated[
    float | tuple[float, ...],
    GetPydanticSchema(
        lambda kind, handler: custom_error_schema(
            handler(kind),
            custom_error_type="numbers",
            custom_error_message="must be a number, or a list of numbers, one for each step",
        )
    ),
]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check that agreed, as the manifest keeps it.

    ``items`` is the SHA-256 of the checked items as canonical JSON. ``largest_difference`` is over ``steps`` numbers,
    and at most ``tolerance``.
    """

    items: str
    tolerance: float
    largest_difference: float
    steps: int


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One history, as an item of ``/score_trajectory`` has it, and what its authors' code gives it.

    The numbers are either promises or raw scores: a list has one for each step, a single number is the last step's.
    """

    task: Annotated[str | None, NOT_NULL] = None
    steps: Annotated[Objects | None, NOT_NULL] = None
    messages: Annotated[Objects | None, NOT_NULL] = None
    tools: Annotated[Objects | None, NOT_NULL] = None
    promise: Annotated[Numbers | None, NOT_NULL] = None
    raw: Annotated[Numbers | None, NOT_NULL] = None

    @property
    def history(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in HISTORY}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def measure(self) -> Literal["promise", "raw"]:
        return "raw" if self.promise is None else "promise"

    @property
    def numbers(self) -> float | tuple[float, ...]:
        numbers = self.raw if self.promise is None else self.promise
        assert numbers is not None, "an item has one of the two, or the file is refused"
        return numbers


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class CheckFile:
    """Items with the authors' numbers, and the largest difference at which a score agrees with its number."""

    items: tuple[CheckItem, ...]
    tolerance: float = TOLERANCE

    def digest(self) -> str:
        content = _ITEMS.dump_python(self.items, exclude_none=True)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


_FILE: Final = TypeAdapter(CheckFile)
_ITEMS: Final = TypeAdapter(tuple[CheckItem, ...])


def read_check_file(path: Path) -> CheckFile:
    """Returns the items of a file.

    Raises:
        CheckpointError: it cannot be read, is not JSON, or a field is missing, unknown, of the wrong type or
            contradicts another. The sentence names the place.
    """
    try:
        text = json.dumps(read_json(path)).encode()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} nests too deep") from error
    file = read_strictly(_FILE, text, str(path))
    if file.tolerance < 0:
        raise ManifestInvalid(f"{path}: tolerance must not be negative")
    if not file.items:
        raise ManifestInvalid(f"{path}: items must hold an item")
    for index, item in enumerate(file.items):
        _refuse_contradictions(item, f"{path}: items[{index}]")
    return file


def _refuse_contradictions(item: CheckItem, place: str) -> None:
    if (item.promise is None) == (item.raw is None):
        raise ManifestInvalid(f"{place}: either promise or raw must hold the authors' numbers")
    if (item.task is None) == (item.messages is None):
        raise ManifestInvalid(f"{place}: either task, with steps, or messages must hold what is scored")
    numbers = item.numbers if isinstance(item.numbers, tuple) else (item.numbers,)
    if item.measure == "promise" and not all(0 <= number <= 1 for number in numbers):
        raise ManifestInvalid(f"{place}: promise must be from 0 to 1; a score before squashing is raw")


def refuse_disagreeing(check: Check) -> None:
    """Raises ManifestInvalid for an outcome that no check can have had."""
    if check.steps < 1 or not 0 <= check.largest_difference <= check.tolerance:
        raise ManifestInvalid("prm.json: check: steps, tolerance and largest_difference are of no check that agreed")
