"""Measures the memory that a full prefix cache takes up, over the bytes that the service tells about it.

    python -m tests.stress.prefix_cache_memory --megabytes 32

Each case is a process of its own: a random model on the CPU, whose cache is filled, and filled anew. The
growth of its resident memory is compared with the metric ``agentprm_prefix_cache_bytes``. The exit status is 1 if it
is over the aim, with a sentence each.
"""

import argparse
import gc
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import torch
from transformers import Qwen2Config

from model_store.network.model import new_model
from service.engine.device_memory import trim_heap
from service.engine.prefix_engine import PrefixEngine

MOST: Final = 1.15
FILLINGS: Final = 1
"""Times that the cache evicts all of its bytes before it is measured."""
VOCABULARY: Final = 5000
CONTEXT_LENGTH: Final = 1024
Batch = list[list[int]]


class Model(NamedTuple):
    """Layers, key/value heads and their size."""

    layers: int
    heads: int
    head_size: int


MODELS: Final = (Model(2, 2, 16), Model(4, 2, 32), Model(12, 4, 64))


@dataclass(frozen=True, slots=True)
class Measured:
    model: Model
    shape: str
    told: int
    """Bytes of the prefix cache as the metric has them."""
    grown: int
    """Bytes by which the resident memory has grown since the cache was empty."""
    nodes: int
    tokens: int

    @property
    def name(self) -> str:
        return "x".join(map(str, self.model))

    @property
    def ratio(self) -> float:
        return self.grown / self.told


def candidates(chance: random.Random) -> Iterator[Batch]:
    """One-token nodes: candidates of a token each over one history."""
    history = tokens(chance, 20)
    yield [[*history, action] for action in chance.sample(range(VOCABULARY), 200)]


def short_steps(chance: random.Random) -> Iterator[Batch]:
    """Many short steps, computed at once."""
    whole = tokens(chance, 180)
    yield [whole[:end] for end in range(20, 181, 8)]


def growing(chance: random.Random) -> Iterator[Batch]:
    """A trajectory that grows by a step a call: its history is joined."""
    whole = tokens(chance, 150)
    for end in range(30, 151, 12):
        yield [whole[:end]]


def long(chance: random.Random) -> Iterator[Batch]:
    """Large nodes."""
    yield [tokens(chance, 400) for _ in range(2)]


SHAPES: Final[dict[str, Callable[[random.Random], Iterator[Batch]]]] = {
    shape.__name__: shape for shape in (candidates, short_steps, growing, long)
}


def tokens(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(VOCABULARY) for _ in range(count)]


def measure(model: Model, shape: str, megabytes: int) -> Measured:
    """Fills the cache of a new engine in this process, which has done nothing else."""
    torch.set_num_threads(1)
    engine = new_engine(model, megabytes * 2**20)
    cache, chance = engine.prefix_cache, random.Random(0)
    fill(engine, shape, chance)
    cache.clear()
    gc.collect()
    trim_heap()
    before = resident_bytes()
    while cache.evicted_bytes < FILLINGS * cache.max_bytes:
        fill(engine, shape, chance)
    grown = resident_bytes() - before
    lengths = list(node_lengths(engine))
    return Measured(model, shape, cache.used_bytes + cache.joined_bytes, grown, len(lengths), sum(lengths))


def new_engine(model: Model, cache_bytes: int) -> PrefixEngine:
    hidden = model.heads * model.head_size
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden,
        num_attention_heads=model.heads,
        num_key_value_heads=model.heads,
        num_hidden_layers=model.layers,
        max_position_embeddings=CONTEXT_LENGTH,
    )
    return PrefixEngine(new_model(config, seed=0).eval(), cache_bytes=cache_bytes, context_length=CONTEXT_LENGTH)


def fill(engine: PrefixEngine, shape: str, chance: random.Random) -> None:
    for batch in SHAPES[shape](chance):
        engine.score(batch, [[0]] * len(batch))


def node_lengths(engine: PrefixEngine) -> Iterator[int]:
    nodes = [*engine.prefix_cache.root.children.values()]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children.values())
        yield len(node.token_ids)


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def row(one: Measured) -> str:
    return (
        f"{one.name:10} {one.shape:12} {one.nodes:7d} {one.tokens:7d} "
        f"{one.told / 2**20:9.1f} {one.grown / 2**20:10.1f} {one.ratio:6.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the memory of a full prefix cache.")
    parser.add_argument("--megabytes", type=int, default=32, help="limit; twice for a large model")
    options = parser.parse_args()
    print(f"{'model':10} {'shape':12} {'nodes':>7} {'tokens':>7} {'told, MB':>9} {'grown, MB':>10} {'ratio':>6}")
    over = []
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        for model, shape in product(MODELS, SHAPES):
            megabytes = options.megabytes * (2 if model.layers > 4 else 1)
            one = processes.submit(measure, model, shape, megabytes).result()
            print(row(one), flush=True)
            if one.ratio > MOST:
                over.append(one)
    for one in over:
        print(f"MISSED: {one.name}, {one.shape}: {one.ratio:.2f} times the told bytes, {MOST} are due.")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
