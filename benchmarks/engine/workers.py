"""Throughput of several processes on one CPU over that of one process, in tokens a second of wall time."""

import argparse
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import table, write_json
from benchmarks.workloads.models import small_config, tiny_config
from benchmarks.workloads.requests import publish
from service.engine.contract import Engine
from service.models.load import load_model
from service.settings import Settings

VARIANTS: Final = {
    "one process, 1 thread": ("cpu", 1),
    "one process, 2 threads": ("cpu", 2),
    "two workers, 1 thread each": ("cpu,cpu", 1),
    "layers split over two, 1 thread each": ("cpu+cpu", 1),
}
MODELS: Final = {"tiny": tiny_config, "small": small_config}
SEQUENCES: Final = {"tiny": 64, "small": 8}
TOKENS: Final = 100


def seconds(engine: Engine, threads: int, sequences: list[list[int]]) -> float:
    torch.set_num_threads(threads)  # threads of this process; workers set their own
    started = time.perf_counter()
    engine.score(sequences, [[TOKENS - 1]] * len(sequences))
    return time.perf_counter() - started


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Measures the variants in turns on unrelated sequences, new in each round; the first round warms up."""
    generator = random.Random(0)
    with TemporaryDirectory() as directory:
        checkpoint = publish(Path(directory), MODELS[name]())
        engines = {
            variant: load_model(
                checkpoint, Settings(model_store=Path(directory), device=device, cpu_threads=threads)
            ).engine
            for variant, (device, threads) in VARIANTS.items()
        }
        taken: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(rounds + 1):
            batch = [[generator.randrange(1000) for _ in range(TOKENS)] for _ in range(SEQUENCES[name])]
            for variant, engine in engines.items():
                taken[variant].append(seconds(engine, VARIANTS[variant][1], batch))
    medians = {variant: statistics.median(found[1:]) for variant, found in taken.items()}
    first = next(iter(medians.values()))
    tokens = TOKENS * SEQUENCES[name]
    return {
        variant: {"tokens_per_second": tokens / median, "gain": first / median} for variant, median in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/workers_gain.json")
    arguments = parser.parse_args()
    start = conditions()
    found = {name: measure(name, arguments.rounds) for name in MODELS}
    write_json(arguments.output, {"conditions": start, "results": found})
    rows = [[variant, *(f"{found[name][variant]['gain']:.2f}" for name in MODELS)] for variant in VARIANTS]
    print(table(["", *(f"{name} model" for name in MODELS)], rows))


if __name__ == "__main__":
    main()
