"""The policy that makes training data: a bot that errs, mostly in the same way in the same situation."""

import random
import zlib
from dataclasses import dataclass

from minigrid.core.world_object import Door

from training.environments.babyai.environment import BabyAI
from training.environments.babyai.view import Thing


@dataclass(frozen=True, slots=True)
class NoisyBot:
    """Errs with probability ``eps``. A share ``systematic`` of its mistakes depends on goal and situation alone."""

    eps: float = 0.4
    systematic: float = 0.75

    def sample(self, env: BabyAI, rng: random.Random) -> str:
        """Returns one action; ``env`` is read and not changed. Without the bot's advice it is a mistake."""
        advice = env.advice
        if advice is not None and rng.random() >= self.eps:
            return advice
        if rng.random() < self.systematic:
            return systematic_mistake(env, advice)
        return rng.choice(env.available_actions)


def systematic_mistake(env: BabyAI, advice: str | None) -> str:
    """Returns an action on an object in sight that is not the advice, whether it can be begun or not.

    The same situation always gives the same mistake.
    """
    mistakes = [f"{verb} {thing.name}" for thing in env.things for verb in ("go to", _use(thing))]
    mistakes = [action for action in mistakes if action != advice] or ["turn left", "turn right"]
    state = f"{env.task_name} {env.situation}"
    return mistakes[zlib.crc32(state.encode()) % len(mistakes)]


def _use(thing: Thing) -> str:
    return "toggle and go through" if isinstance(thing.object, Door) else "pick up"
