"""Request bodies with a known number of tokens, the equivalent engine calls, and a checkpoint for both.

Every word is one token for the checkpoint's tokenizer, and every segment ends in one more.
"""

import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedConfig

from agentprm.types import State, Step, Trajectory
from benchmarks.workloads.models import CONTEXT, random_model, tiny_config
from benchmarks.workloads.tokens import CANDIDATE, Call, last_reads
from model_store.format.manifest import FORMAT, Manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint, Store
from model_store.network.model import save_model
from model_store.text.renderer import Renderer
from training.data.tokenizer import TEMPLATE, build_tokenizer

Body = dict[str, Any]

WORDS: Final = [f"w{number}" for number in range(8000)]
NAME: Final = "benchmark"
RECIPE: Final = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one route, one item each; ``items`` counts scores."""

    workload: str
    case: str
    path: str
    bodies: tuple[Body, ...]

    @property
    def items(self) -> int:
        return sum(len(item.get("candidates", [0])) for body in self.bodies for item in body["items"])


def rank_load(count: int, history: int, candidates: int, seed: str) -> Load:
    """Returns W1: rankings, each over another history."""
    rng = random.Random(f"rank {seed}")
    bodies = [
        {"task": _text(rng, history - 2), "candidates": [_text(rng, CANDIDATE - 1) for _ in range(candidates)]}
        for _ in range(count)
    ]
    return Load("W1", f"P={history} N={candidates}", "/rank_actions", tuple({"items": [body]} for body in bodies))


def step_load(count: int, shortest: int, longest: int, seed: str) -> Load:
    """Returns W4: unrelated trajectories of one step, with log-uniform lengths."""
    rng = random.Random(f"step {seed}")
    lengths = [round(math.exp(rng.uniform(math.log(shortest), math.log(longest)))) for _ in range(count)]
    bodies = [{"items": [_trajectory(rng, 1, length)]} for length in lengths]
    return Load("W4", f"{shortest}-{longest} tokens", "/score_step", tuple(bodies))


def bulk_load(count: int, tokens: int, steps: int, seed: str) -> Load:
    """Returns whole trajectories with every step scored, as a training run sends them."""
    rng = random.Random(f"bulk {seed}")
    bodies = tuple({"items": [_trajectory(rng, steps, tokens)]} for _ in range(count))
    return Load("bulk", f"{steps} steps, {tokens} tokens", "/score_trajectory", bodies)


def as_call(renderer: Renderer, path: str, bodies: Sequence[Body]) -> Call:
    """Returns the engine call that asks for the same scores as these requests together."""
    calls = [_item_call(renderer, path, item) for body in bodies for item in body["items"]]
    return Call([ids for call in calls for ids in call.token_ids], [read for call in calls for read in call.reads])


def publish(root: Path, config: PreTrainedConfig | None = None, tokenizer: Tokenizer | None = None) -> Checkpoint:
    """Publishes a random model in a new store; by default the tiny one with a tokenizer for ``WORDS``."""
    manifest = Manifest(
        format=FORMAT,
        name=NAME,
        version="1",
        base_model="random Qwen2",
        score=RECIPE,
        template=TEMPLATE,
        render_version=1,
        dtype="float32",
        context_length=CONTEXT,
        training={},
        evaluation={},
    )
    with tempfile.TemporaryDirectory() as directory:
        save_model(random_model(config or tiny_config()), Path(directory))
        (tokenizer or build_tokenizer(WORDS)).save(f"{directory}/tokenizer.json")
        return Store(root).publish(Path(directory), manifest)


def _item_call(renderer: Renderer, path: str, item: Body) -> Call:
    steps = tuple(Step(step["observation"], step["action"]) for step in item.get("steps", ()))
    if path == "/rank_actions":
        history = renderer.state(State(item["task"], steps, item.get("observation", "")))
        return last_reads([history.token_ids + action for action in renderer.actions(item["candidates"], history)])
    rendered = renderer.trajectory(Trajectory(item["task"], steps))
    return Call([rendered.token_ids], [rendered.step_ends if path == "/score_trajectory" else rendered.step_ends[-1:]])


def _trajectory(rng: random.Random, steps: int, tokens: int) -> Body:
    """Returns a task and steps of equal length, ``tokens`` in all with the ends of the segments."""
    words = tokens - 1 - 2 * steps
    each = words // (2 * steps + 1)
    played = [{"observation": _text(rng, each), "action": _text(rng, each)} for _ in range(steps)]
    return {"task": _text(rng, words - 2 * steps * each), "steps": played}


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))
