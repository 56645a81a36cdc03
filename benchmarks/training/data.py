"""Trajectories to train on: played TextCraft episodes, and chats of random tokens whose lengths are skewed."""

import random
from dataclasses import replace
from typing import Final

from agentprm.types import Step, Trajectory
from benchmarks.workloads.models import VOCABULARY
from model_store.text.chat_renderer import ReadTokens
from model_store.text.renderer import Renderer
from training.data.encoding import Encoded, encode
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.environments.textcraft.environment import TextCraft, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.rollouts.collect import collect
from training.rollouts.rollout import Rollout

SEED: Final = 7
MEDIAN, LONGEST = 500, 2000
SHORTEST: Final = 60
STEP_TOKENS: Final = 60


def textcraft(count: int) -> list[Encoded]:
    """Rollouts of the noisy planner in word-level tokens."""
    played = list(collect(train_goals(), TextCraft, NoisyPlanner(), count=count, seed=SEED))
    renderer = Renderer(build_tokenizer(text for rollout in played for text in _texts(rollout)), TEMPLATE)
    return encode(played, renderer, LONGEST).examples


def chats(count: int) -> list[Encoded]:
    """Chats of at most 2,000 tokens, log-normal with a median of 500; a step is read every 60 tokens."""
    rng = random.Random(SEED)
    lengths = [min(LONGEST, max(SHORTEST, int(rng.lognormvariate(0, 0.9) * MEDIAN))) for _ in range(count)]
    return [_chat(index, length, rng) for index, length in enumerate(lengths)]


def apart(example: Encoded) -> Encoded:
    """The same trajectory in one row for each step."""
    (row,) = example.rows
    return replace(example, rows=tuple(ReadTokens(row.token_ids[: read + 1], [read]) for read in row.reads))


def _chat(index: int, length: int, rng: random.Random) -> Encoded:
    reads = [*range(STEP_TOKENS - 1, length - STEP_TOKENS, STEP_TOKENS), length - 1]
    steps = tuple(Step("", "-") for _ in reads)
    rollout = Rollout(Trajectory("", steps), float(rng.random() < 0.5), truncated=False, query=str(index))
    return Encoded(f"chat {index}", (ReadTokens(rng.choices(range(VOCABULARY), k=length), reads),), rollout)


def _texts(rollout: Rollout) -> list[str]:
    steps = rollout.trajectory.steps
    return [rollout.trajectory.task, *(text for step in steps for text in (step.observation, step.action))]
