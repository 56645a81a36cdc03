"""The dashboards as pictures: each panel where Grafana puts it, with the data of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from deploy.observe.check import Drawn, Span
from deploy.observe.dashboards import JSON
from deploy.observe.plots import BORDER, FAINT, TEXT, draw_panel

WIDTH: Final = 17.0  # inches, of Grafana's 24 columns
UNIT: Final = 0.32  # inches, of one of Grafana's units of height
HEAD: Final = 0.55  # inches, for the title
GAP: Final = 0.04  # inches, around a panel
MARGINS: Final = {
    "timeseries": (0.62, 0.5, 0.15, 0.34),
    "heatmap": (0.62, 0.28, 0.15, 0.34),
    "stat": (0.1, 0.05, 0.1, 0.3),
    "table": (0.1, 0.05, 0.1, 0.36),
}
"""Inches in a panel around what is drawn: left, bottom, right, top."""


def draw(
    dashboards: Mapping[str, JSON], seen: Mapping[str, Sequence[Drawn]], span: Span, directory: Path
) -> list[Path]:
    """One PNG for each dashboard."""
    mpl.use("agg")
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, dashboard in dashboards.items():
        figure = _page(dashboard, seen[name], span)
        written.append(directory / f"dashboard-{name}.png")
        figure.savefig(written[-1], dpi=80)
        plt.close(figure)
    return written


def _page(dashboard: JSON, panels: Sequence[Drawn], span: Span) -> Figure:
    """What is in a collapsed row is not seen."""
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    hidden = {panel["id"] for row in rows for panel in row["panels"]}
    sheet = _Sheet(max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]))
    sheet.title(dashboard["title"], dashboard["description"])
    for row in rows:
        sheet.row(row)
    for drawn in panels:
        if drawn.panel["id"] not in hidden:
            draw_panel(sheet.panel(drawn.panel), drawn, span)
    return sheet.figure


class _Sheet:
    """Turns places in Grafana's grid into places in a figure."""

    def __init__(self, units: int) -> None:
        self._height = HEAD + units * UNIT + 0.1
        self.figure = plt.figure(figsize=(WIDTH, self._height), facecolor="#f4f5f5")

    def title(self, title: str, description: str) -> None:
        y = 1 - 0.3 / self._height
        self.figure.text(0.006, y, title, fontsize=15, fontweight="bold", color=TEXT, va="center")
        self.figure.text(0.994, y, description, fontsize=9, color=FAINT, va="center", ha="right")

    def row(self, row: JSON) -> None:
        left, top, _, height = _inches(row)
        text = f"▸ {row['title']} (collapsed)" if row["collapsed"] else f"▾ {row['title']}"
        y = 1 - (top + height / 2) / self._height
        self.figure.text((left + 0.1) / WIDTH, y, text, fontsize=10, color=TEXT, va="center")

    def panel(self, panel: JSON) -> Axes:
        """The axes in a white card with the panel's title."""
        left, top, width, height = _inches(panel)
        bottom = self._height - top - height
        card = self._share(left + GAP, bottom + GAP, width - 2 * GAP, height - 2 * GAP)
        self.figure.add_artist(
            Rectangle(card[:2], card[2], card[3], facecolor="white", edgecolor=BORDER, linewidth=0.8, zorder=-1)
        )
        x, y, *_ = self._share(left + 0.12, bottom + height - 0.19, 0, 0)
        self.figure.text(x, y, panel["title"], fontsize=9, fontweight="bold", color=TEXT, va="center")
        before, below, after, above = MARGINS[panel["type"]]
        return self.figure.add_axes(
            self._share(left + before, bottom + below, width - before - after, height - below - above)
        )

    def _share(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / WIDTH, bottom / self._height, width / WIDTH, height / self._height


def _inches(panel: JSON) -> tuple[float, float, float, float]:
    """Left, top, width, height; from the top of the page."""
    grid = panel["gridPos"]
    column = WIDTH / 24
    return grid["x"] * column, HEAD + grid["y"] * UNIT, grid["w"] * column, grid["h"] * UNIT
