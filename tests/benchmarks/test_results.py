from pathlib import Path

from benchmarks.harness.tables import read_json
from benchmarks.report import as_markdown
from benchmarks.workloads.models import MODELS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_the_tables_are_those_of_the_kept_results() -> None:
    files = [RESULTS / f"engine_{model}.json" for model in MODELS]
    engines = [read_json(file) for file in files if file.exists()]
    text = as_markdown(engines, read_json(RESULTS / "service.json"), read_json(RESULTS / "cache.json"))
    assert text == (RESULTS / "results.md").read_text(encoding="utf-8")
