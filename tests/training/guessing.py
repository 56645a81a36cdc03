"""A second environment, small enough to check by hand, and a model that reads its words."""

import random
from typing import Final

import torch
from transformers import Qwen2Config

from agentprm.types import State
from model_store.network.model import RewardModel, new_model
from model_store.text.renderer import Renderer
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.environments.base import Reply

TRIES: Final = 2
NUMBERS: Final = range(4)


class Guessing:
    """Guess a number in ``NUMBERS`` within ``TRIES`` actions. A goal is the number; the seed changes nothing."""

    def __init__(self, goal: int, seed: int) -> None:
        self.goal = goal
        self.seed = seed
        self.reset()

    @property
    def task_name(self) -> str:
        return f"number {self.goal}"

    @property
    def terminated(self) -> bool:
        return self.outcome == 1 or self.left == 0

    def reset(self) -> State:
        self.left = TRIES
        self.outcome = 0.0
        return State("guess")

    def step(self, action: str) -> Reply:
        self.left -= 1
        self.outcome = float(int(action) == self.goal)
        return Reply("higher" if int(action) < self.goal else "lower", self.outcome, self.terminated)

    def copy(self) -> "Guessing":
        twin = Guessing(self.goal, self.seed)
        twin.left, twin.outcome = self.left, self.outcome
        return twin


class Guesser:
    """A policy that guesses blindly."""

    def sample(self, env: Guessing, rng: random.Random) -> str:  # noqa: ARG002  # the contract of a policy
        return str(rng.choice(NUMBERS))


def renderer() -> Renderer:
    return Renderer(build_tokenizer(["guess higher lower", *map(str, NUMBERS)]), TEMPLATE)


def random_model() -> RewardModel:
    """A model of 12 tokens whose scores differ from step to step."""
    config = Qwen2Config(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    model = new_model(config, seed=0).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(next(model.head.parameters()))
    return model
