"""Two plots: the cost of a call by step number, and by number of candidates."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

Result = dict[str, Any]
Line = tuple[list[float], list[float]]

PLAIN: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")
STYLES: Final = {
    "padded": ("padded batch", "#b5482a", "o"),
    "one_by_one": ("one by one", "#d8a03c", "s"),
    "cold": ("prefix engine, nothing held before", "#4a7ba6", "^"),
    "warm": ("prefix engine, history held", "#1d3f5e", "D"),
}


def draw(results: Sequence[Result], directory: Path) -> list[Path]:
    """Writes a PNG and an SVG of each plot and model that the results have points for; returns their paths."""
    mpl.use("agg")
    measured = [result for result in results if "left_out" not in result]
    written = []
    for model in dict.fromkeys(result["model"] for result in measured):
        of_model = [result for result in measured if result["model"] == model]
        if lines := step_lines(of_model):
            figure, axes = _figure(lines, f"One growing trajectory, 60 tokens a step ({model})", "step")
            axes.set_ylim(bottom=0)
            written += _save(figure, directory / f"steps_{model}")
        if (history := widest_history(of_model)) and (lines := candidate_lines(of_model, history)):
            title = f"Ranking candidates of 24 tokens over a history of {history:,} tokens ({model})"
            figure, axes = _figure(lines, title, "candidates")
            axes.set(xscale="log", yscale="log", ylabel="CPU milliseconds per call (log)")
            for axis, ticks in ((axes.xaxis, lines["cold"][0]), (axes.yaxis, None)):
                axis.set_major_formatter(PLAIN)
                axis.set_minor_formatter(NullFormatter())
                axis.set_minor_locator(NullLocator())
                if ticks:
                    axis.set_ticks(ticks)
            written += _save(figure, directory / f"candidates_{model}")
    return written


def step_lines(results: Sequence[Result]) -> dict[str, Line]:
    """Returns the CPU milliseconds of each step of one trajectory, by variant."""
    growing = [result for result in results if result["workload"] == "W2" and result["case"].endswith("B=1")]
    if not growing:
        return {}
    lines: dict[str, Line] = {}
    for name, variant in growing[-1]["variants"].items():
        cost = [1000 * seconds for seconds in variant["cpu_seconds_by_call"]]
        lines[name] = [float(step) for step in range(1, len(cost) + 1)], cost
    return lines


def widest_history(results: Sequence[Result]) -> int | None:
    """Returns the longest history with the most points; None if no history has two."""
    histories = Counter(_sizes(result)[0] for result in results if result["workload"] == "W1")
    most = max(histories.values(), default=0)
    return max(history for history, count in histories.items() if count == most) if most > 1 else None


def candidate_lines(results: Sequence[Result], history: int) -> dict[str, Line]:
    """Returns the CPU milliseconds of a call by its number of candidates, by variant."""
    ranked = [result for result in results if result["workload"] == "W1" and _sizes(result)[0] == history]
    ranked.sort(key=lambda result: _sizes(result)[1])
    counts = [float(_sizes(result)[1]) for result in ranked]
    return {
        name: (counts, [1000 * result["variants"][name]["cpu_seconds"] for result in ranked])
        for name in ranked[0]["variants"]
    }


def _sizes(result: Result) -> tuple[int, int]:
    """Returns the tokens of history and the number of candidates of a W1 case."""
    match = re.fullmatch(r"P=(\d+) N=(\d+)", result["case"])
    assert match, f"not a case of W1: {result['case']}"
    return int(match[1]), int(match[2])


def _figure(lines: dict[str, Line], title: str, across: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, (x, y) in lines.items():
        label, colour, marker = STYLES[name]
        axes.plot(x, y, label=label, color=colour, marker=marker, markersize=4, linewidth=1.6)
    axes.set(title=title, xlabel=across, ylabel="CPU milliseconds per call")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure, axes


def _save(figure: Figure, path: Path) -> list[Path]:
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in written:
        figure.savefig(file, dpi=150)
    plt.close(figure)
    return written
