"""Whether what dashboards and rules ask for is there: every expression against a Prometheus that has seen traffic."""

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
"""What may be without data, by a part of its expression, and why."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is looked at, in seconds since the epoch, and how far apart scrapes were."""

    start: float
    end: float
    step: float

    @property
    def rate_interval(self) -> str:
        """Four scrapes, as Grafana takes it."""
        return f"{round(4000 * self.step)}ms"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the table. ``wrong`` is empty where all is well; ``note`` says why nothing had to be there."""

    where: str
    what: str
    series: int
    wrong: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel's JSON and the series of each of its queries."""

    panel: JSON
    answers: list[list[Series]]


def excuse(expression: str) -> str:
    """Why there need be no data for it; empty where there must be."""
    return next((reason for part, reason in EMPTY.items() if part in expression), "")


def ask_panels(prometheus: Prometheus, span: Span, dashboard: JSON) -> list[Drawn]:
    return [
        Drawn(panel, [_answer(prometheus, target["expr"], span) for target in panel["targets"]])
        for panel in panels_of(dashboard)
    ]


def check_panels(name: str, panels: Sequence[Drawn]) -> Iterator[Finding]:
    for drawn in panels:
        for target, series in zip(drawn.panel["targets"], drawn.answers, strict=True):
            yield _finding(name, drawn.panel["title"], target["expr"], series, labels_shown(drawn.panel, target))


def check_others(prometheus: Prometheus, span: Span, name: str, dashboard: JSON) -> Iterator[Finding]:
    """Variables and annotations."""
    for title, expression in other_expressions_of(dashboard):
        yield _finding(name, title, expression, _answer(prometheus, expression, span))


def check_targets(prometheus: Prometheus, services: int) -> Finding:
    targets = prometheus.targets()
    wrong = [f"{one['scrapeUrl']}: {one['lastError']}" for one in targets if one["health"] != "up"]
    if len(targets) != services:
        wrong.append(f"{len(targets)} targets for {services} services")
    return Finding("targets", "up", len(targets), "; ".join(wrong))


def check_rules(prometheus: Prometheus, span: Span) -> Iterator[Finding]:
    """An alert has only to be evaluated without an error; a recording rule has to record."""
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
    missing = [label for label in labels if not any(label in one.labels for one in series)]
    return Finding(where, what, len(series), f"no series has the label {', '.join(missing)}" if missing else "")


def table(findings: Sequence[Finding]) -> str:
    rows = [_cells(one) for one in findings]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(one: Finding) -> tuple[str, str, str, str]:
    return one.where, one.what, f"{one.series:3} series", f"WRONG: {one.wrong}" if one.wrong else one.note
