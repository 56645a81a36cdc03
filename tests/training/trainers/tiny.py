"""A model of one layer, a handful of TextCraft rollouts in its tokens, and a run over them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import Qwen2Config

from model_store.network.model import RewardModel, new_model
from model_store.text.chat_renderer import ReadTokens
from model_store.text.renderer import Renderer
from training.data.encoding import Encoded, encode
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.environments.textcraft.environment import TextCraft, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect
from training.rollouts.rollout import Rollout
from training.trainers.recipe import Recipe
from training.trainers.state import States
from training.trainers.trainer import Data, Trained, train

RECIPE = Recipe(learning_rate=3e-3, epochs=2, tokens_per_update=600, tokens_per_forward=300)


def rollouts(count: int = 16) -> list[Rollout]:
    return list(collect(train_goals()[:8], TextCraft, NoisyPlanner(), count=count, seed=3))


def renderer_of(played: list[Rollout]) -> Renderer:
    texts = [text for rollout in played for text in _texts(rollout)]
    return Renderer(build_tokenizer(texts), TEMPLATE)


def _texts(rollout: Rollout) -> list[str]:
    steps = rollout.trajectory.steps
    return [rollout.trajectory.task, *(text for step in steps for text in (step.observation, step.action))]


def examples(count: int = 16) -> list[Encoded]:
    played = rollouts(count)
    return encode(played, renderer_of(played), 512).examples


def model(seed: int = 0, **changes: Any) -> RewardModel:
    """A model whose head has a direction, so that its promises differ."""
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        **changes,
    )
    made = new_model(config, seed)
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(next(made.head.parameters()), generator=generator)
    return made


def apart(example: Encoded) -> Encoded:
    """The same trajectory in one row for each step, as a template needs that renders history anew."""
    (row,) = example.rows
    return replace(example, rows=tuple(ReadTokens(row.token_ids[: end + 1], [end]) for end in row.reads))


def run(directory: Path, recipe: Recipe = RECIPE, made: RewardModel | None = None, **options: Any) -> Trained:
    """Trains on twelve rollouts and measures on four."""
    data = options.pop("data", None) or examples()
    states = States(directory, {"recipe": recipe.to_json()})
    return train(made or model(), Data(data[:12], data[12:]), recipe, states, Accelerator(cpu=True), **options)
