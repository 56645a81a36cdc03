"""The one number that a trajectory gets from the promises of its steps."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.aggregate import Aggregate, aggregate

promises = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@pytest.mark.parametrize(("how", "one"), [("last", 0.5), ("min", 0.25), ("mean", 0.5), ("product", 0.09375)])
def test_an_aggregate_is_the_number_that_its_name_says(how: Aggregate, one: float) -> None:
    assert aggregate(how, [0.75, 0.25, 0.5]) == one


@given(promises=promises)
def test_every_aggregate_of_promises_is_a_number_from_0_to_1(promises: list[float]) -> None:
    assert all(0 <= aggregate(how, promises) <= 1 for how in get_args(Aggregate))


@given(promise=st.floats(0, 1))
def test_one_step_is_its_own_aggregate(promise: float) -> None:
    assert all(math.isclose(aggregate(how, [promise]), promise) for how in get_args(Aggregate))
