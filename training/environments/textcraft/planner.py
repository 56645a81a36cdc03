"""The policy that makes the training data: a planner that errs, so that its steps differ in value.

It stands in for an LLM agent. Most of its mistakes are systematic, as an LLM's are: in the same state it prefers the
same wrong action, so a majority vote over several samples does not remove them.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from training.environments.textcraft.environment import TextCraft
from training.environments.textcraft.recipes import Recipe, load_recipes


@dataclass(frozen=True, slots=True)
class NoisyPlanner:
    """Errs with probability ``eps``. A share ``systematic`` of its mistakes depends on goal and inventory alone.

    The defaults succeed in about 0.31 of episodes on train goals; a majority of 4 samples in 0.45, of 8 in 0.53.
    """

    eps: float = 0.46
    systematic: float = 0.75

    def sample(self, env: TextCraft, rng: random.Random) -> str:
        """Returns one action; ``env`` is read and not changed."""
        if rng.random() >= self.eps:
            return rng.choice(right_actions(env))
        if rng.random() < self.systematic:
            return systematic_mistake(env)
        return random_mistake(env, rng)


def right_actions(env: TextCraft) -> list[str]:
    """Returns every action of the shortest plan that can be done now; each leaves a plan one action shorter."""
    plan, inventory = env.plan(), env.inventory
    gets = [f"get {count} {item}" for item, count in plan.gets.items()]
    recipes = [load_recipes().recipes[item] for item in plan.crafts]
    return gets + [recipe.command for recipe in recipes if _can_craft(recipe, inventory)]


def systematic_mistake(env: TextCraft) -> str:
    """Returns an action that fetches an item to be crafted, or crafts without the ingredients.

    The same state always gives the same mistake.
    """
    plan, inventory = env.plan(), env.inventory
    mistakes = [f"get {uses} {item}" for item, uses in plan.crafts.items()]
    recipes = [load_recipes().recipes[item] for item in plan.crafts]
    mistakes += [recipe.command for recipe in recipes if not _can_craft(recipe, inventory)]
    state = f"{env.goal.item} {sorted(inventory.items())}"
    return mistakes[zlib.crc32(state.encode()) % len(mistakes)]


def random_mistake(env: TextCraft, rng: random.Random) -> str:
    """Returns a random mistake: a wrong count, a distractor, an item held already, or a look at the inventory."""
    return rng.choice(_RANDOM_MISTAKES)(env, rng)


def _look(env: TextCraft, rng: random.Random) -> str:  # noqa: ARG001  # one of several with this signature
    return "inventory"


def _wrong_count(env: TextCraft, rng: random.Random) -> str:
    words = rng.choice(right_actions(env)).split()
    place = 1 if words[0] == "get" else -2
    count = int(words[place])
    words[place] = str(count - 1 if count > 1 else count + 1)
    return " ".join(words)


def _distractor(env: TextCraft, rng: random.Random) -> str:
    if not env.distractors:
        return _look(env, rng)
    recipe = rng.choice(env.distractors)
    if _can_craft(recipe, env.inventory):
        return recipe.command
    part, count = rng.choice(recipe.ingredients)
    return f"get {count} {part}"


def _again(env: TextCraft, rng: random.Random) -> str:
    held = [(item, count) for item, count in env.inventory.items() if item in load_recipes().base_items]
    if not held:
        return _look(env, rng)
    item, count = rng.choice(held)
    return f"get {count} {item}"


_RANDOM_MISTAKES: tuple[Callable[[TextCraft, random.Random], str], ...] = (_look, _wrong_count, _distractor, _again)


def _can_craft(recipe: Recipe, inventory: dict[str, int]) -> bool:
    return all(inventory.get(part, 0) >= count for part, count in recipe.ingredients)
