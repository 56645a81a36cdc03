"""The dashboards are up to date, and their queries name metrics that exist."""

import asyncio
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.generate import DIRECTORY, texts
from deploy.observe.dashboards import JSON, expressions_of, filled, panels_of, read_dashboards
from testbed.prometheus import FILES
from tests.deploy.promql import ROOT, assert_asks_for_what_is_there, exposed, promtool

DASHBOARDS = read_dashboards()


def test_the_committed_dashboards_are_those_that_the_code_makes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")} == texts()


def test_every_expression_asks_for_metrics_labels_and_edges_that_exist() -> None:
    labels, edges = asyncio.run(exposed())
    for name, dashboard in DASHBOARDS.items():
        for title, expression in expressions_of(dashboard):
            assert_asks_for_what_is_there(f"{name}, {title}", expression, labels, edges)


def test_every_expression_parses(tmp_path: Path) -> None:
    """Writes the expressions as rules, since promtool reads no bare expressions."""
    rules = [
        {"record": f"{name}:expression", "expr": filled(expression, "1m")}
        for name, dashboard in DASHBOARDS.items()
        for _, expression in expressions_of(dashboard)
    ]
    numbered = [{**rule, "labels": {"number": str(number)}} for number, rule in enumerate(rules)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": numbered}]}), encoding="utf-8")
    promtool("check", "rules", path)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side_in_the_grid(name: str) -> None:
    dashboard = DASHBOARDS[name]
    panels = [*dashboard["panels"], *(panel for row in dashboard["panels"] for panel in row.get("panels", []))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert not [(left["title"], right["title"]) for left, right in combinations(panels, 2) if overlap(left, right)]


def overlap(left: JSON, right: JSON) -> bool:
    a, b = left["gridPos"], right["gridPos"]
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not (beside or below)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_shows(name: str) -> None:
    for panel in panels_of(DASHBOARDS[name]):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["type"] == "table" or all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_each_dashboard_links_to_the_others_and_keeps_what_is_chosen() -> None:
    for dashboard in DASHBOARDS.values():
        (link,) = dashboard["links"]
        assert all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())
        assert link["includeVars"]
        assert link["keepTime"]
        assert {entry["name"] for entry in dashboard["templating"]["list"]} == {
            "datasource",
            "job",
            "instance",
            "model",
        }


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    source = provisioned("datasources/prometheus.yaml")["datasources"][0]
    scraping = yaml.safe_load((FILES / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def provisioned(path: str) -> Any:
    return yaml.safe_load((ROOT / "deploy/grafana/provisioning" / path).read_text(encoding="utf-8"))
