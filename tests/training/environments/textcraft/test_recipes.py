"""The recipe book against the recipe files and against itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.environments.textcraft.recipes import Ingredient, load_recipes

BOOK = load_recipes()
craftable = st.sampled_from(sorted(BOOK.recipes))


def test_the_book_has_the_items_and_depths_counted_in_the_package() -> None:
    depths = [BOOK.depths[item] for item in BOOK.recipes]
    assert len(BOOK.recipes) == 544
    assert [depths.count(depth) for depth in (1, 2, 3, 4)] == [125, 291, 117, 11]


@pytest.mark.parametrize(
    ("item", "command"),
    [
        ("dark_oak_fence_gate", "craft 1 dark_oak_fence_gate using 4 stick 2 dark_oak_planks"),
        ("birch_planks", "craft 4 birch_planks using 1 birch_logs"),
        ("book", "craft 1 book using 3 paper 1 leather"),
    ],
)
def test_a_recipe_reads_as_the_action_that_uses_it(item: str, command: str) -> None:
    assert BOOK.recipes[item].command == command


def test_a_tag_becomes_one_item_of_its_group() -> None:
    assert Ingredient("acacia_planks", 3) in BOOK.recipes["piston"].ingredients


def test_an_item_made_from_its_own_product_has_one_direction_only() -> None:
    assert BOOK.recipes["iron_ingot"].ingredients == (Ingredient("iron_nugget", 9),)
    assert "iron_nugget" in BOOK.base_items


def test_an_item_is_either_crafted_or_fetched() -> None:
    assert not BOOK.base_items & BOOK.recipes.keys()
    assert BOOK.base_items | BOOK.recipes.keys() == BOOK.depths.keys()


def test_every_item_is_one_word() -> None:
    assert all(item.replace("_", "").isalnum() and item.islower() for item in BOOK.depths)


@given(craftable)
def test_an_item_is_one_deeper_than_its_deepest_ingredient(item: str) -> None:
    assert BOOK.depths[item] == 1 + max(BOOK.depths[part] for part, _ in BOOK.recipes[item].ingredients)


@given(craftable)
def test_needed_items_come_before_their_ingredients(item: str) -> None:
    needed = BOOK.needed_items(item)
    assert needed[0] == item
    for place, made in enumerate(needed):
        parts = BOOK.recipes[made].ingredients if made in BOOK.recipes else ()
        assert {part for part, _ in parts} <= set(needed[place + 1 :])


@given(craftable, st.data())
def test_what_is_held_never_makes_a_plan_longer(item: str, data: st.DataObject) -> None:
    needed = BOOK.needed_items(item)
    held = data.draw(st.dictionaries(st.sampled_from(needed), st.integers(1, 9)))
    assert BOOK.plan(needed, held).length <= BOOK.plan(needed, {}).length
