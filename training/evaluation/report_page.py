"""``report.html``: what a checkpoint learned, in one file that needs no other and holds no text of an agent."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from training.evaluation.plots import best_of_n_plot, position_plot, reliability_plot, training_plot

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem .3rem 0;
border-bottom: 1px solid var(--line); vertical-align: top; font-variant-numeric: tabular-nums;
overflow-wrap: anywhere; }
figure { margin: 0; background: #fff; border-radius: 6px; padding: .5rem; }
figcaption { color: #333; font-size: .85rem; }
td:first-of-type { width: 60%; } .wide { overflow-x: auto; } .wide td, .wide th { width: auto; white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; } .note { border-left: 3px solid #d97706; padding-left: .8rem; }
"""
_LABELS: Final = {
    "step_auc": "step AUC",
    "ece": "expected calibration error",
    "brier": "Brier score",
    "success": "mean outcome",
    "trajectories": "trajectories",
    "queries": "queries",
    "steps": "steps",
}


def report_page(evaluation: Mapping[str, Any], training: Mapping[str, Any], title: str) -> str:
    """Returns the page for the JSON of ``HeldOut`` and of a training record, either of which may be empty."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(summary(evaluation))}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in warnings(evaluation)),
        _plots(evaluation, training),
        "<h2>Held-out queries</h2>",
        _table(_figures(evaluation)),
        _best_of_n(evaluation),
        "<h2>Training</h2>",
        _table({name: _plain(value) for name, value in _flat(training).items()}),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def summary(evaluation: Mapping[str, Any]) -> str:
    """One sentence on whether the promises are worth anything."""
    auc = evaluation.get("step_auc", {})
    if "value" not in auc:
        return f"Nothing is known of held-out queries: {auc.get('why', 'none were measured')}."
    floor = max((each["value"] for each in evaluation.get("floors", {}).values() if "value" in each), default=0.5)
    worth = "more" if auc.get("low", auc["value"]) > floor else "not surely more"
    return (
        f"A step of a success has a higher promise than a step of a failure in {auc['value']:.0%} of pairs "
        f"(held-out queries). That is {worth} than the length of trajectories tells, {floor:.0%}."
    )


def warnings(evaluation: Mapping[str, Any]) -> list[str]:
    """What makes the figures less trustworthy than they look."""
    found = list(evaluation.get("notes", []))
    if leaks := evaluation.get("leaks"):
        found.append(f"The tasks of {len(leaks)} held-out queries were trained on under another query, so they leak.")
    if 0 < evaluation.get("queries", 0) < 20:
        found.append(
            f"Only {evaluation['queries']} queries are held out: the intervals are wide, and themselves rough."
        )
    return found


def _plots(evaluation: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    drawn: dict[str, str] = {}
    if bins := evaluation.get("reliability"):
        drawn["Calibration: mean outcome of steps by their promise"] = reliability_plot({"promise": bins})
    if any("value" in each for each in evaluation.get("auc_by_position", {}).values()):
        drawn["Step AUC by position, with 95 % intervals"] = position_plot(evaluation["auc_by_position"])
    if rows := evaluation.get("best_of_n"):
        drawn["Best of N: the attempt with the highest final promise"] = best_of_n_plot(rows)
    if len(auc := training.get("validation_auc", [])) > 1:
        drawn["Training: step AUC on the queries that choose the epoch"] = training_plot(auc)
    figures = [f"<figure>{plot}<figcaption>{caption}</figcaption></figure>" for caption, plot in drawn.items()]
    return f'<div class="plots">{"".join(figures)}</div>'


def _best_of_n(evaluation: Mapping[str, Any]) -> str:
    rows = evaluation.get("best_of_n", [])
    names = [name for name in ("promise", "random", "majority", "oracle", "orm") if any(name in row for row in rows)]
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("N", "queries", *names))
    body = "".join(
        f"<tr><td>{row['n']}</td><td>{row['queries']}</td>"
        + "".join(f"<td>{_figure(row.get(name, {}))}</td>" for name in names)
        + "</tr>"
        for row in rows
    )
    return f'<h2>Best of N</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _figures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Label and text of every figure that is no table of its own."""
    positions, alone = evaluation.get("auc_by_position", {}), evaluation.get("floors", {})
    return (
        {label: _figure(evaluation[key]) for key, label in _LABELS.items() if key in evaluation}
        | {f"AUC, {name}": _figure(each) for name, each in positions.items()}
        | {f"AUC of the {name} alone": _figure(each) for name, each in alone.items()}
    )


def _table(cells: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{cell}</td></tr>" for name, cell in cells.items())
    return f"<table>{rows}</table>" if rows else ""


def _figure(figure: Any) -> str:
    if not isinstance(figure, Mapping):
        return _plain(figure)
    if "value" not in figure:
        return escape(figure.get("why", "-"))
    interval = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if "low" in figure else ""
    return f"{figure['value']:.3f}{interval}"


def _plain(value: Any) -> str:
    return escape(f"{value:.3f}" if isinstance(value, float) and 0.001 < abs(value) < 1000 else str(value))


def _flat(record: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{within}{name} ")
        elif value not in (None, ""):
            flat[f"{within}{name}".replace("_", " ")] = value
    return flat
