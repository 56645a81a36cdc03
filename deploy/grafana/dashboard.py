"""A dashboard as Grafana's JSON: rows of panels in 24 columns, variables, and links to the other dashboards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.grafana.panels import DATASOURCE, JSON, Panel, Row, panel_json, row_json

COLUMNS: Final = 24
TAG: Final = "agentprm"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; ``name`` is also that of its file."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]

    def as_json(self) -> JSON:
        return {
            "uid": f"agentprm-{self.name}",
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": [_firing_alerts()]},
            "links": [_links()],
            "templating": {"list": _variables()},
            "panels": _lay_out(self.rows),
        }


def _lay_out(rows: Sequence[Row]) -> list[JSON]:
    """Lays out all rows. The panels of a collapsed row lie inside it, those of an open row after it."""
    laid: list[JSON] = []
    number, y = 1, 0
    for row in rows:
        head = row_json(row, number, y)
        panels, y = _flow(row.panels, number + 1, y + 1)
        number += 1 + len(panels)
        if row.collapsed:
            head["panels"] = panels
            panels = []
        laid += [head, *panels]
    return laid


def _flow(panels: Sequence[Panel], number: int, y: int) -> tuple[list[JSON], int]:
    """Lays out panels from left to right, then below; also returns the y of what follows."""
    laid = []
    x = tallest = 0
    for at, panel in enumerate(panels):
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        laid.append(panel_json(panel, number + at, x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return laid, y + tallest


def _variables() -> list[JSON]:
    datasource = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return [
        datasource,
        _variable("job", "Job", "label_values(agentprm_ready, job)", several=False),
        _variable("instance", "Instance", 'label_values(agentprm_ready{job="$job"}, instance)'),
        _variable("model", "Model", 'label_values(agentprm_model_info{job="$job"}, model)'),
    ]


def _variable(name: str, label: str, query: str, *, several: bool = True) -> JSON:
    variable: dict[str, Any] = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
    }
    if several:
        chosen = {"selected": True, "text": ["All"], "value": ["$__all"]}
        variable |= {"multi": True, "includeAll": True, "allValue": ".*", "current": chosen}
    return variable


def _links() -> JSON:
    return {"type": "dashboards", "title": "AgentPRM", "tags": [TAG], "keepTime": True, "includeVars": True}


def _firing_alerts() -> JSON:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "expr": 'ALERTS{alertname=~"AgentPRM.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "iconColor": "red",
    }
