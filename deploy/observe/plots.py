"""What is drawn in a panel: lines, a heat map, a number or a table, near enough to what Grafana draws."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import Bbox

from deploy.observe.check import Drawn, Span, excuse
from deploy.observe.dashboards import JSON, legend
from deploy.observe.units import formatted
from testbed.prometheus import Series

LINES: Final = ("#3274d9", "#56a64b", "#e0b400", "#b877d9", "#ff780a", "#37b6bd", "#8f3bb8", "#7c7f86", "#1f4e79")
LEVELS: Final = {"green": "#37872d", "orange": "#e0780a", "red": "#c4162a"}
BORDER, TEXT, FAINT = "#d8dade", "#24292e", "#6e7781"
MOST_LABELS: Final = 9
LONGEST_LABEL: Final = 34
SHORT_LABEL: Final = 12


def draw_panel(axes: Axes, drawn: Drawn, span: Span) -> None:
    kind = drawn.panel["type"]
    if not any(drawn.answers):
        reason = excuse(drawn.panel["targets"][0]["expr"])
        axes.axis("off")
        axes.text(0.5, 0.5, f"No data: {reason}" if reason else "No data", ha="center", va="center", color=FAINT)
    elif kind == "stat":
        _stat(axes, drawn)
    elif kind == "table":
        _table(axes, drawn)
    elif kind == "heatmap":
        _heatmap(axes, drawn, span)
    else:
        _timeseries(axes, drawn, span)


def _timeseries(axes: Axes, drawn: Drawn, span: Span) -> None:
    defaults = drawn.panel["fieldConfig"]["defaults"]
    limits = {override["matcher"]["options"] for override in drawn.panel["fieldConfig"]["overrides"]}
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    colours = cycle(LINES)
    for target, series, label in _labelled(drawn):
        seconds = [time - span.start for time in series.times]
        if target["refId"] in limits:
            axes.plot(seconds, series.values, color=LEVELS["red"], linestyle="--", linewidth=1.2, label=label)
            continue
        base = [below.get(time, 0.0) if stacked else 0.0 for time in series.times]
        top = [low + value for low, value in zip(base, series.values, strict=True)]
        colour = next(colours)
        axes.plot(seconds, top, color=colour, linewidth=1.4, label=label)
        axes.fill_between(seconds, base, top, color=colour, alpha=0.3 if stacked else 0.06, linewidth=0)
        below |= dict(zip(series.times, top, strict=True))
    _scale(axes, defaults)
    _clock(axes, span)
    _legend(axes)


def _labelled(drawn: Drawn) -> Iterator[tuple[JSON, Series, str]]:
    for target, answer in zip(drawn.panel["targets"], drawn.answers, strict=True):
        for series in answer:
            label = legend(target["legendFormat"], series.labels)
            yield target, series, label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _scale(axes: Axes, defaults: JSON) -> None:
    """From the least to the most that the panel allows, with its thresholds where they are reached."""
    low, high = defaults.get("min"), defaults.get("max")
    most = max(float(np.max(line.get_ydata())) for line in axes.get_lines())
    if high is None and low is not None:
        high = 1.1 * most if most > 0 else 1.0
    axes.set_ylim(bottom=low, top=None if high is None else high * 1.02)
    for step in defaults["thresholds"]["steps"][1:]:
        if step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=LEVELS[step["color"]], linestyle=(0, (6, 4)), linewidth=1)
    words = defaults.get("mappings", [{"options": {}}])[0]["options"]
    if words:
        axes.set_yticks([float(value) for value in words], [one["text"] for one in words.values()])
        return
    step = 2 ** np.ceil(np.log2(axes.get_ylim()[1] / 5)) if defaults["unit"] in ("bytes", "Bps") else None
    axes.yaxis.set_major_locator(MultipleLocator(step) if step else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, defaults["unit"])))


def _clock(axes: Axes, span: Span) -> None:
    axes.set_xlim(0, span.end - span.start)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(length=0, labelsize=7, labelcolor=FAINT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(BORDER)
    axes.grid(visible=True, axis="y", color="#eceef0", linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]  # never a subfigure's
    columns = 4 if max(map(len, labels)) <= SHORT_LABEL else 3
    axes.legend(
        handles[:MOST_LABELS], labels[:MOST_LABELS],
        loc="upper left", bbox_to_anchor=(-0.55 / width, -0.11), ncols=columns, frameon=False, fontsize=6.5,
        handlelength=1.2, columnspacing=1, handletextpad=0.4, labelspacing=0.25, borderaxespad=0.2,
    )  # fmt: skip


def _heatmap(axes: Axes, drawn: Drawn, span: Span) -> None:
    """Counts of each bucket, from the cumulative ones of Prometheus; from the first bucket that is used to the last."""
    ordered = sorted(drawn.answers[0], key=lambda series: float(series.labels["le"]))
    times = sorted({time for series in ordered for time in series.times})
    counts = np.diff([_at(series, times) for series in ordered], axis=0, prepend=0).clip(min=0)
    used = np.flatnonzero(counts.any(axis=1))
    rows = np.arange(used.min(), used.max() + 1)
    shown = np.where(counts[rows] > 0, counts[rows], np.nan) ** 0.5
    seconds = [time - span.start for time in times]
    axes.pcolormesh(seconds, rows, shown, cmap="Blues", vmin=0, shading="nearest", edgecolors="white", linewidth=0.4)
    unit = drawn.panel["fieldConfig"]["defaults"]["unit"]
    ticks = rows[:: max(1, len(rows) // 8)]
    axes.set_yticks(ticks + 0.5, [formatted(float(ordered[tick].labels["le"]), unit) for tick in ticks])
    _clock(axes, span)
    axes.grid(visible=False)


def _at(series: Series, times: Sequence[float]) -> list[float]:
    known = dict(zip(series.times, series.values, strict=True))
    return [known.get(time, 0.0) for time in times]


def _stat(axes: Axes, drawn: Drawn) -> None:
    """The last value, over the course of it."""
    series = drawn.answers[0][0]
    defaults = drawn.panel["fieldConfig"]["defaults"]
    last = series.values[-1]
    steps = defaults["thresholds"]["steps"]
    colour = [LEVELS[step["color"]] for step in steps if step["value"] is None or last >= step["value"]][-1]
    axes.fill_between(series.times, series.values, color=colour, alpha=0.12, linewidth=0)
    axes.plot(series.times, series.values, color=colour, alpha=0.5, linewidth=1)
    axes.set_ylim(0, 2.2 * max(series.values) or 1)
    axes.axis("off")
    text = formatted(last, defaults["unit"])
    axes.text(
        0.5, 0.62, text, transform=axes.transAxes, ha="center", va="center",
        fontsize=19, color=colour, fontweight="bold",
    )  # fmt: skip


def _table(axes: Axes, drawn: Drawn) -> None:
    columns: list[str] = drawn.panel["transformations"][0]["options"]["include"]["names"]
    rows = [[_cell(series.labels.get(name, "")) for name in columns] for series in drawn.answers[0]]
    axes.axis("off")
    height = min(1.0, 0.25 * (len(rows) + 1) / (axes.get_position().height * axes.figure.get_figheight()))  # type: ignore[union-attr]
    table = axes.table(
        rows,
        colLabels=columns,
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
        bbox=Bbox.from_bounds(0, 1 - height, 1, height),
    )
    table.auto_set_font_size(value=False)
    table.set_fontsize(8)
    for cell in table.get_celld().values():
        cell.set_edgecolor(BORDER)


def _cell(text: str) -> str:
    return text if len(text) < 30 else f"{text[:24]}…"
