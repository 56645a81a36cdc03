"""docs/requests.md has a row for every field of requests and items, with its default."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentprm import wire

PAGE = (Path(__file__).parents[2] / "docs" / "requests.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """The defaults in the table with this heading, by field."""
    table = PAGE.split(f"| {heading} | default | meaning |\n", 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "models"),
    [
        ("field of a request", (wire.ScoreRequest, wire.ScoreTrajectoryRequest, wire.RankRequest)),
        ("field of an item", (wire.TrajectoryItem, wire.RankItem)),
    ],
)
def test_every_field_has_a_row_with_its_default(heading: str, models: tuple[type[BaseModel], ...]) -> None:
    documented = rows(heading)
    fields: dict[str, Any] = {name: field for model in models for name, field in model.model_fields.items()}
    assert fields.keys() <= documented.keys()
    for name, field in fields.items():
        if isinstance(field.default, str):
            assert documented[name] == f'`"{field.default}"`'
