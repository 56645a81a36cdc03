"""An evaluation report as tables for a reader."""

from training.evaluation.experiment import Report
from training.evaluation.metrics import Interval


def as_text(report: Report) -> str:
    """Returns Markdown tables; each cell is a mean and its 95 % interval over training seeds and goals."""
    seeds = f"{report.training_seeds} training seed{'s' if report.training_seeds > 1 else ''}"
    parts = [
        f"{report.goals} held-out goals, {seeds}; mean [95 % bootstrap interval over seeds and goals].",
        f"**Success when the best of N proposed actions is taken at every step** ({report.episodes} episodes a goal)",
        _by_n(report.steps),
        f"**Success of the best of N trajectories, by final promise** ({report.trajectories} trajectories a goal)",
        _by_n(report.best_of),
        "**Step promise against the trajectory's final outcome**",
        _table(
            ["", *next(iter(report.offline.values()))],
            [[name, *map(str, row.values())] for name, row in report.offline.items()],
        ),
    ]
    return "\n\n".join(parts)


def _by_n(methods: dict[str, dict[int, Interval]]) -> str:
    sizes = sorted({n for row in methods.values() for n in row})
    rows = [[name, *(str(row[n]) if n in row else "" for n in sizes)] for name, row in methods.items()]
    return _table(["", *(f"N={n}" for n in sizes)], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
