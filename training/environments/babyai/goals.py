"""Goals of BabyAI: a level of the ``minigrid`` package and the number of one of its layouts."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

LEVELS: Final = {
    "GoToSeqS5R2": 7,
    "OpenDoorsOrderN2": 4,
    "OpenRedBlueDoorsDebug": 5,
    "KeyCorridorS3R1": 14,
    "PutNextLocalS5N3": 6,
    "PutNextLocalS6N4": 8,
    "PutNextS4N1": 7,
    "UnlockLocal": 5,
}
"""Levels of several stages in few rooms, and the actions that an episode of each allows."""

LAYOUTS: Final = 200  # of each level
_HELD_OUT_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Goal:
    """One layout of a level: rooms, objects and mission."""

    level: str
    layout: int

    @property
    def name(self) -> str:
        """Such as ``UnlockPickup 17``."""
        return f"{self.level} {self.layout}"

    @property
    def budget(self) -> int:
        """The number of actions that an episode allows."""
        return LEVELS[self.level]


def train_goals() -> tuple[Goal, ...]:
    """Returns the goals that training and tuning may see."""
    return tuple(goal for goal in _goals() if not _is_held_out(goal))


def held_out_goals() -> tuple[Goal, ...]:
    """Returns the goals kept for evaluation: those whose names' hashes say so, about a fifth."""
    return tuple(goal for goal in _goals() if _is_held_out(goal))


@lru_cache(maxsize=1)
def _goals() -> tuple[Goal, ...]:
    return tuple(Goal(level, layout) for level in LEVELS for layout in range(LAYOUTS))


def _is_held_out(goal: Goal) -> bool:
    return sha256(goal.name.encode()).digest()[0] < _HELD_OUT_SHARE * 256
