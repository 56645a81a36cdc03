"""Reads the JSON of the dashboards: panels, expressions, and variables."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

JSON = dict[str, Any]

DEPLOY: Final = Path(__file__).parents[1]
DASHBOARDS: Final = DEPLOY / "grafana" / "dashboards"
JOB: Final = "agentprm"
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


def read_dashboards() -> dict[str, JSON]:
    """Returns the dashboards by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels_of(dashboard: JSON) -> Iterator[JSON]:
    """Yields every panel that is no row, also those in collapsed rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def expressions_of(dashboard: JSON) -> Iterator[tuple[str, str]]:
    """Yields title and expression of every query: of panels, annotations and variables."""
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    yield from other_expressions_of(dashboard)


def other_expressions_of(dashboard: JSON) -> Iterator[tuple[str, str]]:
    """Yields title and expression of the queries of annotations and variables."""
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["definition"])
            assert match, f"not a query for the values of a label: {variable['definition']}"
            yield f"variable {variable['name']}", f"group by ({match['label']}) ({match['series']})"


def labels_shown(panel: JSON, target: JSON) -> list[str]:
    """Returns the labels that a panel shows in its legend or as columns of a table."""
    columns = [name for step in panel.get("transformations", []) for name in step["options"]["include"]["names"]]
    return columns + _LABEL.findall(target["legendFormat"])


def filled(expression: str, rate_interval: str) -> str:
    """Replaces the variables of a dashboard, with every instance and every model chosen."""
    values = {"$job": JOB, "$instance": ".*", "$model": ".*", "$__rate_interval": rate_interval}
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    return expression


def legend(template: str, labels: Mapping[str, str]) -> str:
    """Returns the legend of a series."""
    return _LABEL.sub(lambda match: labels.get(match[1], ""), template)
