"""``python -m training check``: what rollout files hold, and every line that cannot be read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from tqdm import tqdm

from model_store.format.store import Store
from training.base_model import base_text
from training.commands.config_file import ConfigOption
from training.commands.format_option import FormatOption
from training.rollouts.files import write_rollouts
from training.rollouts.formats import AUTO
from training.rollouts.places import Fault
from training.rollouts.reading import Reading, read
from training.rollouts.rendering import left_out_parts, token_lengths
from training.rollouts.summary import Spread, Summary, Tokens


def check(
    paths: Annotated[list[Path], typer.Argument(help="Files, or directories that are searched for them.")],
    *,
    config: ConfigOption = None,  # noqa: ARG001 (read by its callback)
    format: FormatOption = AUTO,  # noqa: A002 (the name of the option)
    base: Annotated[
        str | None, typer.Option(help="Model whose tokens are counted: a directory, org/name@commit or name@version.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Directory of the store that name@version is in.")] = None,
    context_length: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a trajectory; absent: as many as the base model reads.")
    ] = None,
    convert: Annotated[Path | None, typer.Option(help="Write what could be read as JSON lines to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Print what rollout files hold: trajectories, queries, outcomes, lengths, and every bad line with the reason.

    Ends with 1 if a line is bad.
    """
    reading = read(paths, format)
    text = _text(reading, base, store, context_length) if base else _Text(None, [], [])
    faults = [*reading.faults, *text.faults]
    notes = [*reading.notes, *text.notes, *([_write(convert, reading)] if convert else [])]
    summary = Summary.of(reading.rollouts)
    if as_json:
        print(json.dumps(_as_json(summary, text.tokens, notes, faults), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_as_text(summary, text.tokens, notes, faults)))
    if faults:
        raise typer.Exit(1)


class _Text(NamedTuple):
    """Rollouts as a base model reads them; a chat that its template refuses is a fault."""

    tokens: Tokens | None
    notes: list[str]
    faults: list[Fault]


def _text(reading: Reading, base: str, store: Path | None, context_length: int | None) -> _Text:
    faults: list[Fault] = []
    lengths: list[int] = []
    histories = [rollout.history for rollout in reading.rollouts]
    with base_text(base, Store(store) if store else None, context_length=context_length) as text:
        counted = tqdm(token_lengths(histories, text.renderer), total=len(histories), unit="rollout", delay=2)
        for place, length in zip(reading.places, counted, strict=True):
            if isinstance(length, int):
                lengths.append(length)
            else:
                faults.append(Fault(place, f"the template of the base model refuses it: {length}"))
        tokens = Tokens.of(text.source, text.context_length, lengths)
        return _Text(tokens, list(left_out_parts(histories, text.renderer)), faults)


def _write(path: Path, reading: Reading) -> str:
    count = write_rollouts(path, reading.rollouts)
    return f"{count} trajectories were written to {path}" + (", without the bad lines" if reading.faults else "")


def _as_json(summary: Summary, tokens: Tokens | None, notes: list[str], faults: list[Fault]) -> dict[str, Any]:
    bad = [{"place": str(fault.place), "reason": fault.reason} for fault in faults]
    return {**summary.to_json(), "tokens": tokens.to_json() if tokens else None, "notes": notes, "bad": bad}


def _as_text(summary: Summary, tokens: Tokens | None, notes: list[str], faults: list[Fault]) -> Iterator[str]:
    yield f"{summary.trajectories} trajectories of {summary.queries} queries, {len(faults)} bad lines"
    yield f"  {summary.chats} are chats, {summary.truncated} were truncated"
    for value, count in summary.outcomes.items():
        yield f"  outcome {value}: {count} ({count / summary.trajectories:.0%})"
    if summary.labelled_steps or summary.continued_steps:
        yield f"  {summary.labelled_steps} steps have a label, {summary.continued_steps} have continuations"
    yield ""
    yield f"  {'':24}{'least':>8}{'10 %':>8}{'median':>8}{'90 %':>8}{'99 %':>8}{'most':>8}{'mean':>10}"
    yield from _row("steps a trajectory", summary.steps)
    yield from _row("attempts a query", summary.attempts)
    if tokens:
        yield from _row("tokens a trajectory", tokens.lengths)
        yield ""
        yield f"  {tokens.too_long} trajectories exceed the context of {tokens.context_length} tokens of {tokens.base}"
    yield from ("", "Notes", *(f"  {note}" for note in notes)) if notes else ()
    yield from ("", "Bad lines", *(f"  {fault}" for fault in faults)) if faults else ()


def _row(name: str, spread: Spread | None) -> Iterator[str]:
    if spread:
        numbers = (spread.least, spread.p10, spread.median, spread.p90, spread.p99, spread.most)
        yield f"  {name:24}" + "".join(f"{number:8.0f}" for number in numbers) + f"{spread.mean:10.1f}"
