"""Recording and alerting rules: valid, tested, explained, and about what the service exposes."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.http.routes.scores import SCORE_ROUTES
from testbed.prometheus import FILES
from tests.deploy.promql import ROOT, RULE_FILES, assert_asks_for_what_is_there, exposed, promtool, rules

ALERTS = rules("alert")
NAMES = [alert["alert"] for alert in ALERTS]
FIXTURES = sorted((FILES / "tests").glob("*.yml"))
PAGE = "docs/operations/alerts.md"


def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", FILES / "prometheus.yml")


def test_groups_of_all_files_have_names_of_their_own() -> None:
    """Kubernetes is given them as one object."""
    names = re.findall(
        r"^  - name: (.+)$", "".join(path.read_text(encoding="utf-8") for path in RULE_FILES), re.MULTILINE
    )
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_rules_fire_when_they_should_and_only_then(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_has_been_seen_to_fire_and_not_to_fire() -> None:
    fired: set[str] = set()
    kept_still: set[str] = set()
    for case in cases():
        named = re.search(r'ALERTS\{alertname(=~?)"([^"]*)"', case["expr"])
        if named:
            pattern = named[2] if named[1] == "=~" else re.escape(named[2])
            names = {name for name in NAMES if re.fullmatch(pattern, name)}
            assert names, f"no alert is called {named[2]}"
            (fired if case["exp_samples"] else kept_still).update(names)
    assert fired == set(NAMES)
    assert kept_still == set(NAMES)


def cases() -> list[dict[str, Any]]:
    fixtures = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FIXTURES]
    return [case for fixture in fixtures for test in fixture["tests"] for case in test["promql_expr_test"]]


def test_every_rule_asks_for_metrics_labels_and_edges_that_exist() -> None:
    labels, edges = asyncio.run(exposed())
    for rule in [*rules("record"), *ALERTS]:
        name = rule.get("record") or rule["alert"]
        assert_asks_for_what_is_there(name, rule["expr"], labels, edges)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"{PAGE}#{alert['alert'].lower()}"


def test_the_page_of_alerts_has_one_section_for_each_in_their_order() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert re.findall(r"^### (.+)$", page, flags=re.MULTILINE) == NAMES


def test_the_objectives_are_about_every_route_that_answers_scores() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in RULE_FILES)
    named = set(re.findall(r'agentprm_requests_total\{route=~"([^"]*)"', text))
    assert named == {"|".join(SCORE_ROUTES)}
