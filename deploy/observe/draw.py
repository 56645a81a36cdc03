"""Draws every panel of the dashboards with the data of a run: plain plots, not a copy of Grafana."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, PercentFormatter

from deploy.observe.check import PanelData, Span, excuse
from deploy.observe.dashboards import JSON, labels_shown, legend

COLUMNS: Final = 3
WIDTH, HEIGHT = 5.0, 2.8  # inches of a panel
FORMATTERS: Final[Mapping[str, Callable[[], Formatter]]] = {
    "percentunit": partial(PercentFormatter, 1),
    **{name: partial(EngFormatter, unit) for name, unit in (("s", "s"), ("bytes", "B"), ("Bps", "B/s"))},
}
"""Units of Grafana; other numbers are drawn as they are."""


def draw(
    dashboards: Mapping[str, JSON], panels: Mapping[str, Sequence[PanelData]], span: Span, directory: Path
) -> list[Path]:
    """Writes one PNG for each dashboard and returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, dashboard in dashboards.items():
        rows = ceil(len(panels[name]) / COLUMNS)
        figure = Figure(figsize=(COLUMNS * WIDTH, rows * HEIGHT), layout="constrained")
        figure.suptitle(dashboard["title"])
        figure.supxlabel("seconds", fontsize=8)
        for number, data in enumerate(panels[name], 1):
            _plot(figure.add_subplot(rows, COLUMNS, number), data, span)
        paths.append(directory / f"dashboard-{name}.png")
        figure.savefig(paths[-1], dpi=72)
    return paths


def _plot(axes: Axes, data: PanelData, span: Span) -> None:
    """Plots one panel over the seconds of the run: lines, a histogram's buckets as an image, or a table as text."""
    panel, targets, first = data.panel, data.panel["targets"], data.answers[0]
    axes.set_title(panel["title"], fontsize=10, fontweight="bold")
    axes.tick_params(labelsize=7)
    if panel["type"] == "table" or not any(data.answers):
        columns = labels_shown(panel, targets[0])
        rows = ["   ".join(series.labels.get(name, "")[:24] for name in columns) for series in first]
        text = "\n".join(rows) or f"no data: {excuse(targets[0]['expr'])}"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, in_layout=False)
        axes.axis("off")
    elif panel["type"] == "heatmap":
        buckets = sorted(first, key=lambda series: float(series.labels["le"]))
        cumulative = [np.interp(buckets[0].times, bucket.times, bucket.values) for bucket in buckets]
        counts = np.diff(cumulative, axis=0, prepend=0)
        axes.imshow(
            counts, aspect="auto", origin="lower", cmap="Blues", extent=(0, span.end - span.start, 0, len(counts))
        )
        axes.set_yticks(range(1, len(buckets) + 1), [bucket.labels["le"] for bucket in buckets], fontsize=5)
    else:
        for target, answer in zip(targets, data.answers, strict=True):
            for series in answer:
                seconds = [time - span.start for time in series.times]
                axes.plot(seconds, series.values, linewidth=1, label=legend(target["legendFormat"], series.labels))
        defaults = panel["fieldConfig"]["defaults"]
        if formatter := FORMATTERS.get(defaults["unit"]):
            axes.yaxis.set_major_formatter(formatter())
        axes.set_ylim(bottom=defaults.get("min"))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, ncols=2)
