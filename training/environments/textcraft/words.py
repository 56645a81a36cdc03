"""TextCraft in words, for language models: names with spaces, commas between ingredients, a budget in proportion.

The world is that of ``TextCraft``; only the text and the number of actions allowed differ.
"""

import random
import re
from dataclasses import dataclass, field

from agentprm.types import State
from training.environments.base import Reply
from training.environments.textcraft.environment import Goal, TextCraft, shortest
from training.environments.textcraft.planner import NoisyPlanner

_LISTED = re.compile(r"(\d+ [a-z]\w*) (?=\d)")
_GET = re.compile(r"(get \d+) (.+)")
_CRAFT = re.compile(r"craft (\d+) (.+?) using (.+)")


def in_words(text: str) -> str:
    """Returns an action, a reply or a task with ``dark_oak_planks`` written as dark oak planks."""
    return _LISTED.sub(r"\1, ", text).replace("_", " ")


def from_words(action: str) -> str:
    """Returns the action of ``TextCraft`` that was written in words; anything else stays as it is."""
    if match := _GET.fullmatch(action):
        return f"{match[1]} {_name(match[2])}"
    if match := _CRAFT.fullmatch(action):
        ingredients = [part.partition(" ") for part in match[3].split(", ")]
        listed = " ".join(f"{count} {_name(item)}" for count, _, item in ingredients)
        return f"craft {match[1]} {_name(match[2])} using {listed}"
    return action


def _name(words: str) -> str:
    return words.replace(" ", "_")


class TextCraftInWords:
    """One episode of ``TextCraft`` whose task, actions and replies are in words.

    Half as many actions again as the shortest plan takes are allowed. So long plans succeed about as often as short
    ones, and the number of actions left tells little about the outcome.
    """

    __slots__ = ("inner",)

    def __init__(self, goal: Goal, seed: int) -> None:
        self.inner = TextCraft(goal, seed, allowed=shortest(goal) * 3 // 2)

    def reset(self) -> State:
        """Begins again and returns the state before the first action; its observation is empty."""
        return State(in_words(self.inner.reset().task))

    def step(self, action: str) -> Reply:
        """Takes one action and replies. Raises ValueError if the episode is over."""
        reply = self.inner.step(from_words(action.strip()))
        return reply._replace(observation=in_words(reply.observation))

    def copy(self) -> "TextCraftInWords":
        """Returns an episode in the same state that goes on independently."""
        twin = object.__new__(TextCraftInWords)
        twin.inner = self.inner.copy()
        return twin

    @property
    def task_name(self) -> str:
        """The item to craft, in words."""
        return in_words(self.inner.task_name)

    @property
    def seed(self) -> int:
        """The seed of the episode."""
        return self.inner.seed

    @property
    def terminated(self) -> bool:
        """True once the goal is crafted or no action is left."""
        return self.inner.terminated

    @property
    def outcome(self) -> float:
        """1 once the goal is crafted, else 0."""
        return self.inner.outcome


@dataclass(frozen=True, slots=True)
class NoisyPlannerInWords:
    """A noisy planner that writes its actions in words."""

    planner: NoisyPlanner = field(default_factory=NoisyPlanner)

    def sample(self, env: TextCraftInWords, rng: random.Random) -> str:
        """Returns one action; ``env`` is read and not changed."""
        return in_words(self.planner.sample(env.inner, rng))
