"""``python -m benchmarks.training``: speed of training as ratios within a run, on the tiny model and one torch thread.

Every variant takes the gradients of one update, of the same trajectories and the same loss: TD + GAE targets of the
current promises, L_Q + L_A. Padded batches hold eight trajectories, as they come or sorted by length.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import process_time
from typing import Any, Final

import torch

from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import ratio, table, write_json
from benchmarks.harness.timing import ratios
from benchmarks.training.data import SEED, apart, chats, textcraft
from benchmarks.workloads.models import random_model, tiny_config
from model_store.network.model import RewardModel
from training.data.encoding import Encoded
from training.data.packing import cost, pack
from training.data.targets import Labels, targets
from training.trainers.forward import Forward, choose_forward
from training.trainers.loss import Counts, agentprm_loss, padded_targets

Batches = Sequence[Sequence[Encoded]]
BATCH: Final = 8
FORWARD_TOKENS: Final = 4_096
LABELS: Final = Labels()
TOLERANCE: Final = 1e-5


def gradients(forward: Forward, batches: Batches) -> float:
    """Takes the gradients of an update in these batches and returns its loss."""
    forward.model.zero_grad()
    whole = [example for batch in batches for example in batch]
    steps = sum(example.steps for example in whole)
    over = Counts(steps, max(1, steps - len(whole)))
    total = 0.0
    for batch in batches:
        promise_BS = forward.promises(batch)
        rows = [
            targets(example, promises[: example.steps], LABELS, LABELS.lam)
            for example, promises in zip(batch, promise_BS.tolist(), strict=True)
        ]
        loss = sum(agentprm_loss(promise_BS, *padded_targets(rows), over))
        assert isinstance(loss, torch.Tensor)
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def measure(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, Any]]:
    """Returns the CPU seconds of each round and the loss of each variant; variants take turns.

    A first round is not counted: it fills caches and memory pools.
    """
    found: dict[str, dict[str, Any]] = {name: {"cpu_seconds": [], "loss": 0.0} for name in variants}
    names = list(variants)
    for number in range(-1, rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            started = process_time()
            found[name]["loss"] = variants[name]()
            if number >= 0:
                found[name]["cpu_seconds"].append(process_time() - started)
    return found


@contextmanager
def variants_of(model: RewardModel, data: list[Encoded]) -> Iterator[dict[str, tuple[Forward, Batches]]]:
    """Yields the ways to batch, on the model's own attention if rows are padded."""
    shuffled = random.Random(SEED).sample(data, len(data))
    by_length = sorted(data, key=lambda example: example.tokens)
    padded = Forward(_plain(), torch.float32, padded=True)
    padded.model.load_state_dict(model.state_dict())
    with choose_forward(model, torch.float32, data) as packed:
        assert not packed.padded
        yield {
            "packed": (packed, pack(data, FORWARD_TOKENS)),
            "padded, as they come": (padded, _batches(shuffled)),
            "padded, sorted by length": (padded, _batches(by_length)),
        }


def compare_batches(name: str, data: list[Encoded], rounds: int) -> dict[str, Any]:
    """Compares packed with padded batches of the same trajectories."""
    with variants_of(_plain(), data) as variants:
        calls = {label: partial(gradients, *how) for label, how in variants.items()}
        found = measure(calls, rounds)
        for label, (forward, batches) in variants.items():
            found[label]["tokens"] = sum(cost(batch, padded=forward.padded) for batch in batches)
    return _compared(name, data, found, "packed")


def compare_passes(name: str, data: list[Encoded], rounds: int) -> dict[str, Any]:
    """Compares one pass over each trajectory with one forward a step, both packed."""
    split = [apart(example) for example in data]
    with choose_forward(_plain(), torch.float32, data) as forward:
        assert not forward.padded
        ways = {"one pass": pack(data, FORWARD_TOKENS), "one forward a step": pack(split, FORWARD_TOKENS)}
        found = measure({label: partial(gradients, forward, batches) for label, batches in ways.items()}, rounds)
    for label, batches in ways.items():
        found[label]["tokens"] = sum(cost(batch, padded=False) for batch in batches)
    return _compared(name, data, found, "one pass")


def _compared(name: str, data: list[Encoded], found: dict[str, dict[str, Any]], ours: str) -> dict[str, Any]:
    lengths = [example.tokens for example in data]
    for other in found.values():
        other["cost"] = ratios(other["cpu_seconds"], found[ours]["cpu_seconds"])._asdict()
        other["token_ratio"] = other["tokens"] / found[ours]["tokens"]
        other["tokens_per_cpu_second"] = sum(lengths) / median(other["cpu_seconds"])
        assert abs(other["loss"] - found[ours]["loss"]) <= TOLERANCE, "losses differ"
    shape = {"trajectories": len(data), "mean_tokens": fmean(lengths), "longest": max(lengths), "tokens": sum(lengths)}
    return {"data": name, **shape, "variants": found}


def _batches(data: Sequence[Encoded]) -> Batches:
    return [data[start : start + BATCH] for start in range(0, len(data), BATCH)]


def _plain() -> RewardModel:
    return random_model(tiny_config()).requires_grad_(requires_grad=True)


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """The ratios as a markdown table."""
    rows = [
        [
            f"{result['data']}: {result['trajectories']} of {result['mean_tokens']:.0f} tokens, <= {result['longest']}",
            label,
            f"{one['tokens_per_cpu_second']:.0f}",
            f"{one['token_ratio']:.2f}",
            ratio(one["cost"]),
            f"{one['loss']:.6f}",
        ]
        for result in results
        for label, one in result["variants"].items()
    ]
    heading = ["trajectories", "gradients by", "tokens a CPU second", "computed tokens, ratio", "CPU, ratio", "loss"]
    return table(heading, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--textcraft", type=int, default=64, help="rollouts of an update")
    parser.add_argument("--chats", type=int, default=24, help="chats of an update")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/training.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = conditions()
    played, said = textcraft(arguments.textcraft), chats(arguments.chats)
    results = [
        compare_batches("TextCraft", played, arguments.rounds),
        compare_batches("chats", said, arguments.rounds),
        compare_passes("TextCraft", played, arguments.rounds),
        compare_passes("chats", said[:: len(said) // 4 or 1], arguments.rounds),
    ]
    write_json(arguments.output, {"conditions": start | {"rounds": arguments.rounds}, "results": results})
    print(as_table(results))


if __name__ == "__main__":
    main()
