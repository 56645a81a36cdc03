"""Panels as data, and as the JSON of Grafana 10.4 and newer. This module knows no metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

JSON = dict[str, Any]

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query of a panel; ``limit`` draws it as a dashed line that is never stacked."""

    expr: str
    legend: str
    limit: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``unit`` is one of Grafana's; ``thresholds`` are values, each with the colour above it.

    ``words`` maps values to the texts that are shown instead; ``columns`` are the labels that a table shows.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["timeseries", "heatmap", "stat", "table"] = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    lowest: float | None = 0
    highest: float | None = None
    thresholds: Sequence[tuple[float, str]] = ()
    words: Mapping[int, str] = field(default_factory=dict)
    columns: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


def panel_json(panel: Panel, number: int, x: int, y: int) -> JSON:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "targets": [_target(panel.kind, query, at) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": OPTIONS[panel.kind] | (_axis(panel) if panel.kind == "heatmap" else {}),
        **({"transformations": [_columns(panel)]} if panel.kind == "table" else {}),
    }


def row_json(row: Row, number: int, y: int) -> JSON:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": row.collapsed,
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        "panels": [],
    }


def _target(kind: str, query: Query, at: int) -> JSON:
    form = {"heatmap": "heatmap", "table": "table"}.get(kind, "time_series")
    return {
        "refId": chr(ord("A") + at),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": form,
        "instant": kind == "table",
        "range": kind != "table",
    }


def _defaults(panel: Panel) -> JSON:
    steps = [{"color": GREEN, "value": None}, *({"color": colour, "value": at} for at, colour in panel.thresholds)]
    defaults: JSON = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    bounds = {"min": panel.lowest, "max": panel.highest}
    defaults |= {name: bound for name, bound in bounds.items() if bound is not None}
    if panel.words:
        options = {str(value): {"text": text, "index": at} for at, (value, text) in enumerate(panel.words.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        defaults["custom"] = _line_style(panel)
    return defaults


def _line_style(panel: Panel) -> JSON:
    return {
        "lineWidth": 2,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
    }


def _overrides(panel: Panel) -> list[JSON]:
    """Returns Grafana's overrides that draw limits as dashed lines."""
    properties = {
        "color": {"mode": "fixed", "fixedColor": RED},
        "custom.lineStyle": {"fill": "dash", "dash": [10, 8]},
        "custom.fillOpacity": 0,
        "custom.stacking": {"mode": "none"},
    }
    return [
        {
            "matcher": {"id": "byFrameRefID", "options": chr(ord("A") + at)},
            "properties": [{"id": name, "value": value} for name, value in properties.items()],
        }
        for at, query in enumerate(panel.queries)
        if query.limit
    ]


def _axis(panel: Panel) -> JSON:
    return {"yAxis": {"unit": panel.unit, "axisPlacement": "left"}}


def _columns(panel: Panel) -> JSON:
    return {"id": "filterFieldsByName", "options": {"include": {"names": list(panel.columns)}}}


OPTIONS: Final[Mapping[str, JSON]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "table": {"showHeader": True},
}
