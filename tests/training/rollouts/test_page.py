"""docs/rollouts.md: its examples are read, and its table has every field."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agentprm.rollouts import OutcomeLine, TrajectoryLine, read_line
from training.rollouts.formats import AUTO, FORMATS, OWN
from training.rollouts.reading import read

PAGE = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_rollouts(tmp_path: Path) -> None:
    path = tmp_path / "page.jsonl"
    path.write_text("".join(EXAMPLES))
    chat, steps, recorded = read([path]).whole()
    assert (chat.steps, steps.steps, recorded.steps) == (2, 2, 2)
    assert steps.trajectory == recorded.trajectory


def test_every_field_of_a_line_is_in_the_table() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Files")[0], re.MULTILINE))
    assert documented == TrajectoryLine.model_fields.keys()
    assert OutcomeLine.model_fields.keys() - {"action"} <= documented


def test_every_format_is_in_the_table() -> None:
    documented = set(re.findall(r"^\| `(\w[\w-]*)` \|", PAGE.split("## Other projects")[1], re.MULTILINE))
    assert documented == set(FORMATS) - {AUTO, OWN}


def test_the_converter_of_the_page_writes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    run = '{"chat": [{"role": "user", "content": "Help."}, {"role": "assistant", "content": "Ok."}], '
    output: Any = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", io.StringIO(run + '"score": 50, "ticket": "T1"}'))
    monkeypatch.setattr(sys, "stdout", output)
    exec(code, {})  # noqa: S102 (the code of our own page)
    line = read_line(output.buffer.getvalue())
    assert isinstance(line, TrajectoryLine)
    assert (line.outcome, line.query, line.step_count) == (0.5, "T1", 1)
