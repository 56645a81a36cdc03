"""TextCraft for rollouts: as the bundled checkpoint reads it, and in words."""

from typing import Final

from training.environments.base import World
from training.environments.textcraft.environment import TextCraft, held_out_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.environments.textcraft.words import NoisyPlannerInWords, TextCraftInWords

TEXTCRAFT: Final = World(train_goals, held_out_goals, TextCraft, NoisyPlanner())
IN_WORDS: Final = World(train_goals, held_out_goals, TextCraftInWords, NoisyPlannerInWords())
