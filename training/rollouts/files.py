"""Rollout files: one JSON object a line, strictly read."""

import codecs
import json
import os
import reprlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from agentprm.errors import AgentPRMError
from training.rollouts.rollout import Rollout


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Writes one JSON object a line and returns how many; ``path`` appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for rollout in rollouts:
                file.write(json.dumps(asdict(rollout)) + "\n")
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def read_rollouts(path: Path) -> list[Rollout]:
    """Reads all rollouts of a file.

    Raises:
        AgentPRMError: a line is not a rollout; names the file, the line, each wrong field and what is wrong.
    """
    rollouts = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise AgentPRMError(f"{path} is not UTF-8; save it as UTF-8")
            try:
                # Windows editors put a mark at the beginning.
                rollouts.append(_ROLLOUT.validate_json(line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8)))
            except ValidationError as error:
                raise AgentPRMError(f"{path}, line {number}: not a rollout ({_faults(error)})") from error
    return rollouts


def _check_end(rollout: Rollout) -> Rollout:
    if rollout.terminated == rollout.truncated:
        raise PydanticCustomError("end", "terminated, truncated: exactly one of the two must be true")
    return rollout


_ROLLOUT: Final = TypeAdapter(Annotated[Rollout, AfterValidator(_check_end)])


def _faults(error: ValidationError) -> str:
    """Returns every fault as ``field: what is wrong, got value``."""
    return "; ".join(map(_fault, error.errors(include_url=False)))


def _fault(fault: ErrorDetails) -> str:
    field = ".".join(map(str, fault["loc"]))
    if not field:
        return fault["msg"].replace(" at line 1 column ", " at column ")  # the JSON of one line
    if fault["type"] == "missing":
        return f"{field}: missing"
    message = "unknown field" if fault["type"] == "unexpected_keyword_argument" else fault["msg"]
    return f"{field}: {message}, got {reprlib.repr(fault['input'])}"
