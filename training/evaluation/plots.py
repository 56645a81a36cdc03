"""Plots of held-out figures as SVG text, from their JSON."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "agentprm", "font.size": 9}

_UNIT: Final = (-0.03, 1.03)
"""Limits of an axis from 0 to 1, at whose ends dots are whole."""
_CHOOSERS: Final = {
    "oracle": "oracle",
    "promise": "promise",
    "orm": "outcome model",
    "majority": "majority",
    "random": "random",
}


def reliability_plot(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Mean outcome against mean promise of each bin, a line for each label; a dot's area grows with its steps."""
    figure, axes = _new("mean promise", "mean outcome")
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--", label="calibrated")
    for label, bins in series.items():
        most = max(each["steps"] for each in bins)
        x, y = ([each[key] for each in bins] for key in ("promise", "outcome"))
        axes.plot(x, y, linewidth=1)
        axes.scatter(x, y, s=[20 + 120 * each["steps"] / most for each in bins], label=label, alpha=0.8)
    axes.set(xlim=_UNIT, ylim=_UNIT)
    axes.legend(frameon=False)
    return _svg(figure)


def position_plot(positions: Mapping[str, Mapping[str, Any]]) -> str:
    """The step AUC in each part of the trajectories, with its interval."""
    figure, axes = _new("", "step AUC")
    known = {name: each for name, each in positions.items() if "value" in each}
    axes.axhline(0.5, color="#999", linewidth=1, linestyle="--")
    for index, each in enumerate(known.values()):
        low, high = each.get("low", each["value"]), each.get("high", each["value"])
        axes.plot([index, index], [low, high], color="#2a6fdb", linewidth=2)
        axes.plot(index, each["value"], "o", color="#2a6fdb")
    axes.set_xticks(range(len(known)), list(known))
    axes.set(xlim=(-0.5, len(known) - 0.5), ylim=_UNIT)
    return _svg(figure)


def best_of_n_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean outcome of the chosen attempt against the number of attempts, by what chooses."""
    figure, axes = _new("attempts", "mean outcome")
    for key, label in _CHOOSERS.items():
        points = [(row["n"], row[key]["value"]) for row in rows if "value" in row.get(key, {})]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", linewidth=1.5, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["n"] for row in rows], [str(row["n"]) for row in rows])
    axes.set(ylim=_UNIT)
    axes.legend(frameon=False)
    return _svg(figure)


def training_plot(auc: Sequence[float]) -> str:
    """The AUC on the validation queries after each epoch; the best epoch is the one that is kept."""
    figure, axes = _new("epoch", "validation AUC")
    axes.axhline(0.5, color="#999", linewidth=1, linestyle="--")
    axes.plot(range(1, len(auc) + 1), auc, marker="o", linewidth=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylim=_UNIT)
    return _svg(figure)


def _new(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The element alone: no XML declaration, and no metadata, which would name the day."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
