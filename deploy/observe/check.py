"""Checks every expression of dashboards and rules against a Prometheus that has scraped a service under load."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.observe.dashboards import JSON, filled, labels_shown, other_expressions_of, panels_of
from testbed.prometheus import Prometheus, Series

EMPTY: Final = {
    "agentprm_gpu_memory_bytes": "needs a GPU",
    "agentprm_promise:psi": "needs the day before",
    "offset 1d": "needs the day before",
    "ALERTS": "no alert has fired",
}
"""Reasons why an expression may have no data, by a part of the expression."""


@dataclass(frozen=True, slots=True)
class Span:
    """Start and end of a run in seconds since the epoch, and the seconds between two scrapes."""

    start: float
    end: float
    step: float

    @property
    def rate_interval(self) -> str:
        """Grafana's ``$__rate_interval``: the time of four scrapes."""
        return f"{round(4000 * self.step)}ms"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check. ``wrong`` is empty if it passed; ``note`` says why there may be no data."""

    where: str
    what: str
    series: int
    wrong: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class PanelData:
    """JSON of a panel and the series of each of its queries."""

    panel: JSON
    answers: list[list[Series]]


def excuse(expression: str) -> str:
    """Returns why an expression may have no data; empty if it must have some."""
    return next((reason for part, reason in EMPTY.items() if part in expression), "")


def ask_panels(prometheus: Prometheus, span: Span, dashboard: JSON) -> list[PanelData]:
    """Runs the queries of every panel."""
    return [
        PanelData(panel, [_answer(prometheus, target["expr"], span) for target in panel["targets"]])
        for panel in panels_of(dashboard)
    ]


def check_panels(name: str, panels: Sequence[PanelData]) -> Iterator[Finding]:
    """Checks that every query of a panel has data with the labels that the panel shows."""
    for data in panels:
        for target, series in zip(data.panel["targets"], data.answers, strict=True):
            yield _finding(name, data.panel["title"], target["expr"], series, labels_shown(data.panel, target))


def check_others(prometheus: Prometheus, span: Span, name: str, dashboard: JSON) -> Iterator[Finding]:
    """Checks the queries of variables and annotations."""
    for title, expression in other_expressions_of(dashboard):
        yield _finding(name, title, expression, _answer(prometheus, expression, span))


def check_targets(prometheus: Prometheus, services: int) -> Finding:
    """Checks that Prometheus scrapes every service."""
    targets = prometheus.targets()
    wrong = [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]
    if len(targets) != services:
        wrong.append(f"{len(targets)} targets for {services} services")
    return Finding("targets", "up", len(targets), "; ".join(wrong))


def check_rules(prometheus: Prometheus, span: Span) -> Iterator[Finding]:
    """Checks that alerts are evaluated without an error and that recording rules record."""
    for rule in prometheus.rules():
        yield _rule(prometheus, rule, span)


def _rule(prometheus: Prometheus, rule: dict[str, Any], span: Span) -> Finding:
    if rule["health"] != "ok":
        return Finding("rules", rule["name"], 0, rule.get("lastError") or rule["health"])
    if rule["type"] == "alerting":
        return Finding("rules", rule["name"], len(rule["alerts"]), note=rule["state"])
    return _finding("rules", rule["name"], rule["name"], _answer(prometheus, rule["name"], span))


def _answer(prometheus: Prometheus, expression: str, span: Span) -> list[Series]:
    return prometheus.over(filled(expression, span.rate_interval), span.start, span.end, span.step)


def _finding(where: str, what: str, expression: str, series: Sequence[Series], labels: Sequence[str] = ()) -> Finding:
    if not series:
        reason = excuse(expression)
        return Finding(where, what, 0, "" if reason else f"no data: {expression}", reason)
    missing = [label for label in labels if not any(label in line.labels for line in series)]
    return Finding(where, what, len(series), f"no series has the label {', '.join(missing)}" if missing else "")


def table(findings: Sequence[Finding]) -> str:
    """Returns one line of text for each finding."""
    rows = [_cells(finding) for finding in findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(finding: Finding) -> tuple[str, str, str, str]:
    remark = f"WRONG: {finding.wrong}" if finding.wrong else finding.note
    return finding.where, finding.what, f"{finding.series:3} series", remark
