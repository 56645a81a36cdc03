"""The table of chat fields in ``docs/chats.md`` is the one in the code."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from agentprm import wire
from agentprm.wire.chat_fields import (
    FUNCTION,
    LEVELS,
    MESSAGE,
    PART,
    REASONING_PARTS,
    REFUSED_PARTS,
    TEXT_PARTS,
    TOOL,
    TOOL_CALL,
    Level,
)

CHATS = Path(__file__).parents[2] / "docs" / "chats.md"
HEAD = ("in a", "field", "what becomes of it")
Row = tuple[str, str, str]


def test_the_documentation_shows_every_field() -> None:
    section = CHATS.read_text(encoding="utf-8").partition("## Fields\n")[2].partition("\n## ")[0]
    rows = [HEAD, ("---",) * len(HEAD), *(row for level in LEVELS for row in rows_of(level)), *part_types()]
    assert "\n".join(f"| {' | '.join(cells)} |" for cells in rows) in section


def test_the_table_reads_exactly_the_fields_that_the_bodies_declare() -> None:
    bodies: list[tuple[Level, type[BaseModel]]] = [
        (MESSAGE, wire.Message),
        (PART, wire.ContentPart),
        (TOOL_CALL, wire.ToolCall),
    ]
    bodies.append((FUNCTION, wire.FunctionCall))
    for level, body in bodies:
        assert level.read.keys() == body.model_fields.keys(), level.name
    assert TOOL.read.keys() == {"type", "function"}


def rows_of(level: Level) -> Iterator[Row]:
    for name, meaning in level.read.items():
        yield level.name, f"`{name}`", f"Read. {meaning}"
    yield level.name, code(level.ignored), "Ignored."
    if beside := [name for name in level.beside_reasoning if name not in level.read]:
        yield level.name, code(beside), "Ignored where the turn has reasoning in a field that is read."
    for name, advice in level.refused.items():
        yield level.name, f"`{name}`", f"Refused: {advice}."


def part_types() -> Iterator[Row]:
    yield "content part", f"type {code(TEXT_PARTS)}, or none", "Text."
    yield "content part", f"type {code(REASONING_PARTS)}", "Reasoning; the assistant's only."
    yield "content part", f"type {code(REFUSED_PARTS)} and any other", "Refused."


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
