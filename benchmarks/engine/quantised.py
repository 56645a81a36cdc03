"""Cost of quantised weights: in scores and rankings of TextCraft episodes, in memory, and in CPU time."""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from agentprm.search.choosers import BestPromise
from benchmarks.harness.conditions import ROOT, conditions
from benchmarks.harness.tables import table, write_json
from benchmarks.workloads.models import random_model, small_config
from benchmarks.workloads.textcraft import PROPOSALS, Recorder
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store
from model_store.network.model import RewardModel, load_model, score_rows
from model_store.network.quantise import Bits, quantise_layers, score_error
from model_store.text.renderer import Renderer, load_renderer
from service.engine.selection import choose_engine
from service.settings import CHECKPOINTS
from training.environments.textcraft.environment import TextCraft, held_out_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.evaluation.acting import act
from training.evaluation.critic import Critic
from training.rollouts.collect import collect

Models = dict[str, RewardModel]
Rows = list[list[int]]
FULL: Final = "float32"
CASES: Final = ((1, 16), (2, 128))
"""Sequences and tokens of each of a forward without cached prefixes."""


class Choice(NamedTuple):
    """The best proposal by quantised weights: whether full weights agree, and how much promise it loses by those."""

    same: bool
    lost: float


def variants(full: RewardModel) -> Models:
    """Returns the model in float32 and bfloat16, each plain and quantised."""
    half: Any = deepcopy(full)
    half.backbone.to(torch.bfloat16)
    models: Models = {FULL: full, "bfloat16": half}
    quantised: list[tuple[str, Bits]] = [(FULL, "int8"), ("bfloat16", "int8"), ("bfloat16", "int4")]
    for dtype, bits in quantised:
        model = models[f"{dtype}+{bits}"] = deepcopy(models[dtype])
        quantise_layers(model, bits, device="cpu")
    return models


def score_errors(models: Models, token_ids: Rows, reads: list[list[int]], promise: Callable[[float], float]) -> Any:
    raw = {
        name: [score for row in score_rows(model, token_ids, reads) for score in row] for name, model in models.items()
    }
    label = f"{len(raw[FULL])} scores"
    return {name: score_error(raw[FULL], found, promise, label)._asdict() for name, found in raw.items()}


def proposals(full: RewardModel, renderer: Renderer, score: ScoreRecipe, episodes: int) -> Iterator[Rows]:
    """Yields the sequences that are ranked in each state of an episode with at least two distinct proposals."""
    goals = list(held_out_goals())
    random.Random(0).shuffle(goals)
    recorder = Recorder(BestPromise(Critic(full, renderer, score).action_promises))
    act(goals[:episodes], TextCraft, NoisyPlanner(), recorder, proposals=PROPOSALS, episodes=1, seed=0)
    for decision in recorder.decisions:
        distinct = list(dict.fromkeys(decision.proposed))
        if len(distinct) > 1:
            history = renderer.state(decision.state)
            yield [history.token_ids + action for action in renderer.actions(distinct, history)]


def best_choice(full: list[float], found: list[float]) -> Choice:
    best = max(range(len(found)), key=found.__getitem__)
    return Choice(full[best] == max(full), max(full) - full[best])


def ranking_agreement(models: Models, states: list[Rows], promise: Callable[[float], float]) -> dict[str, Any]:
    agreement = {}
    promises = {
        name: [
            [promise(raw) for (raw,) in score_rows(model, rows, [[len(row) - 1] for row in rows])] for rows in states
        ]
        for name, model in models.items()
    }
    for name, found in promises.items():
        choices = [best_choice(*pair) for pair in zip(promises[FULL], found, strict=True)]
        agreed = sum(choice.same for choice in choices)
        lost = max(choice.lost for choice in choices)
        agreement[name] = {"states": len(states), "same_best": agreed, "most_given_up": lost}
    return agreement


def megabytes(model: RewardModel) -> float:
    def size(weight: Any) -> int:
        parts = [getattr(weight, name) for name in getattr(weight, "tensor_data_names", [])] or [weight]
        return sum(part.nbytes for part in parts)

    return sum(map(size, model.parameters())) / 1e6


def cpu_seconds(models: Models, rounds: int) -> dict[str, dict[str, float]]:
    """Returns median CPU seconds by model and case; the models take turns, with layers packed as in the service."""
    engines = {name: choose_engine(model, prefix_cache_bytes=0, context_length=1024) for name, model in models.items()}
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in engines}
    for rows, length in CASES:
        token_ids = torch.randint(64, (rows, length), generator=torch.Generator().manual_seed(1)).tolist()
        for _ in range(rounds):
            for name, engine in engines.items():
                started = time.process_time()
                engine.score(token_ids, [[length - 1]] * rows)
                taken[name].setdefault(f"{rows} x {length} tokens", []).append(time.process_time() - started)
    return {
        name: {case: statistics.median(seconds) for case, seconds in cases.items()} for name, cases in taken.items()
    }


def measure(rounds: int) -> dict[str, Any]:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    score, renderer = checkpoint.manifest.score, load_renderer(checkpoint)
    demo = variants(load_model(checkpoint, "cpu", FULL))
    rendered = [
        renderer.trajectory(rollout.trajectory)
        for rollout in collect(held_out_goals(), TextCraft, NoisyPlanner(), count=40, seed=5)
    ]
    small = variants(random_model(small_config()))
    rows = torch.randint(8192, (4, 64), generator=torch.Generator().manual_seed(2)).tolist()
    found: dict[str, Any] = {
        "textcraft_error": score_errors(
            demo, [row.token_ids for row in rendered], [list(row.step_ends) for row in rendered], score.promise
        ),
        "textcraft_ranking": ranking_agreement(demo, list(proposals(demo[FULL], renderer, score, 24)), score.promise),
        "small_error": score_errors(small, rows, [list(range(64))] * 4, lambda raw: 1 / (1 + 2.718281828**-raw)),
        "small_megabytes": {name: megabytes(model) for name, model in small.items()},
    }
    return {**found, "small_cpu_seconds": cpu_seconds(small, rounds)}


def as_table(found: dict[str, Any]) -> str:
    rows = []
    for name, error in found["textcraft_error"].items():
        ranking, seconds = found["textcraft_ranking"][name], found["small_cpu_seconds"]
        rows.append(
            [
                name,
                f"{error['promise_rms']:.4f} / {error['promise_max']:.3f}",
                f"{ranking['same_best']} of {ranking['states']}",
                f"{found['small_megabytes'][name]:.0f}",
                *(f"{median / seconds[FULL][case]:.2f}" for case, median in seconds[name].items()),
            ]
        )
    heading = ["dtype+weights", "promise rms / largest", "same best action", "MB, 0.1B model"]
    return table([*heading, *(f"time, {rows} x {length} tokens" for rows, length in CASES)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.quantised", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/weights_cost.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = conditions()
    found = measure(arguments.rounds)
    write_json(arguments.output, {"conditions": start, "results": found})
    print(as_table(found))


if __name__ == "__main__":
    main()
