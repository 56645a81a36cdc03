"""The README's examples run as they stand and print what it shows; settings and results are documented as they are."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import PREFIX, Settings
from tests.end_to_end.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_python_example_prints_what_the_readme_shows(server: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(block("python").replace(ADDRESS, server), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == block("text")


def test_the_curl_example_answers_what_the_readme_shows(server: str) -> None:
    command = block("sh").replace(ADDRESS, server)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=100)  # noqa: S602
    assert rounded(json.loads(done.stdout)) == rounded(json.loads(block("json")))


def rounded(value: Any) -> Any:
    """The reply with numbers to four places and without counts that depend on the caches."""
    if isinstance(value, dict):
        return {
            name: rounded(item)
            for name, item in value.items()
            if name not in ("computed", "prefix_cache", "score_cache")
        }
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    (row,) = [line for line in SETTINGS.splitlines() if line.startswith(f"| `{PREFIX}{name.upper()}` |")]
    field = Settings.model_fields[name]
    assert field.description
    assert field.description in row
    if name != "model_store":
        default = ",".join(field.default) if isinstance(field.default, tuple | dict) else str(field.default)
        assert f"| {f'`{default}`' if default else 'empty'} |" in row


def test_the_evaluation_table_is_the_one_that_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "textcraft.json").read_text(encoding="utf-8"))
    for method, row in (measured["steps"] | measured["best_of"]).items():
        for mean, low, high in row.values():
            assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in RESULTS, method
    mean, low, high = measured["offline"]["AgentPRM"]["step AUC"]
    assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in RESULTS


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 150
