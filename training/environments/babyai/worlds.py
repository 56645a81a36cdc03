"""BabyAI for rollouts."""

from typing import Final

from training.environments.babyai.environment import BabyAI
from training.environments.babyai.goals import held_out_goals, train_goals
from training.environments.babyai.policy import NoisyBot
from training.environments.base import World

BABYAI: Final = World(train_goals, held_out_goals, BabyAI, NoisyBot())
