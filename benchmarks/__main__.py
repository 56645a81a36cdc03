"""``python -m benchmarks [--quick | --full] [--only W1 W2 ... service] [--models tiny small smollm2]``.

``--quick`` (the default) proves in a minute or two that everything works and writes to ``runs/benchmarks``;
``--full`` is what is quoted and writes to ``benchmarks/results``. The exit status tells whether the scores were equal.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Final

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import textcraft_traffic, workloads
from benchmarks.conditions import ROOT, conditions
from benchmarks.engine_bench import bench_model
from benchmarks.models import MODELS, load_measured
from benchmarks.plots import draw
from benchmarks.report import as_markdown, engine_section, mixed_section, read_json, service_section, write_json
from benchmarks.service_bench import FULL, QUICK, bench_service

PARTS: Final = ("W1", "W2", "W3", "W4", "W5", "service")


def main() -> int:
    arguments = _parse()
    logging.basicConfig(level="INFO", format="%(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    # So that servers and clients end with this process, whoever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    directory: Path = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    if set(arguments.only) - {"service"}:
        wrong += _engine(arguments, directory)
    if "service" in arguments.only:
        wrong += _service(arguments, directory)
    found = [directory / name for name in ("engine.json", "service.json")]
    engine, service = (read_json(path) if path.exists() else None for path in found)
    (directory / "results.md").write_text(as_markdown(engine, service), encoding="utf-8")
    for complaint in wrong:
        print(f"SCORES DIFFER: {complaint}", file=sys.stderr)
    return bool(wrong)


def _engine(arguments: argparse.Namespace, directory: Path) -> list[str]:
    start, results = conditions(), list[dict[str, Any]]()
    cases = workloads.full() if arguments.full else workloads.quick()
    if "W5" in arguments.only:
        cases += textcraft_traffic.textcraft(4 if arguments.full else 1)
    cases = [case for case in cases if case.name in arguments.only]
    for name in arguments.models:
        if measured := load_measured(name):
            results += bench_model(measured, cases, arguments.rounds, arguments.limit, _show_engine)
            # After each model, so that an interrupted run keeps what it has.
            write_json(directory / "engine.json", {"conditions": _told(start, arguments), "results": results})
    for picture in draw(results, directory):
        print(f"wrote {picture}")
    return [f"{one['model']} {one['workload']} {one['case']}" for one in results if not one.get("equal", True)]


def _service(arguments: argparse.Namespace, directory: Path) -> list[str]:
    start = conditions()
    document = bench_service(FULL if arguments.full else QUICK, arguments.rounds)
    print(service_section(document["results"]), mixed_section(document["mixed_load"]), sep="\n", flush=True)
    write_json(directory / "service.json", {"conditions": _told(start, arguments), **document})
    return [f"service {one['workload']} {one['case']}" for one in document["results"] if not one["equal"]]


def _told(start: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = {"sizes": "full" if arguments.full else "quick", "rounds": arguments.rounds, "only": arguments.only}
    return {**start, **chosen, "load_average_at_end": conditions()["load_average"]}


def _show_engine(result: dict[str, Any]) -> None:
    print(engine_section(result), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios measured side by side.")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small sizes: that it works (default)")
    sizes.add_argument("--full", action="store_true", help="the sizes that are quoted; an hour or more")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), help="default: tiny; all with --full")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument(
        "--limit", type=float, help="leave out what takes a baseline more seconds a pass (10; full: 150)"
    )
    parser.add_argument("--output", type=Path, help="directory of the results")
    arguments = parser.parse_args()
    arguments.models = arguments.models or (list(MODELS) if arguments.full else ["tiny"])
    arguments.limit = arguments.limit or (150 if arguments.full else 10)
    arguments.output = arguments.output or ROOT / ("benchmarks/results" if arguments.full else "runs/benchmarks")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
