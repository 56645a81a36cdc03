"""The memory tier against its definition, and the two tiers together."""

import asyncio
import math
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from service.metrics import Metrics
from service.score_cache.keys import Key
from service.score_cache.memory_tier import MemoryTier
from service.score_cache.tiers import TieredCache

KEYS = [b"a", b"b", b"c", b"d", b"e"]
keys = st.lists(st.sampled_from(KEYS), max_size=6)
puts = st.dictionaries(st.sampled_from(KEYS), st.floats(allow_nan=False, allow_infinity=False), max_size=4)


def tier(max_items: int = 100) -> MemoryTier:
    return MemoryTier(max_items, Metrics().score_cache)


def sample(metrics: Metrics, name: str) -> float:
    lines = metrics.exposition().decode().splitlines()
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} "))


@given(max_items=st.integers(0, 4), calls=st.lists(st.one_of(keys, puts), max_size=20))
def test_the_memory_holds_the_scores_that_were_used_last(
    max_items: int, calls: list[list[Key] | dict[Key, float]]
) -> None:
    memory, model = tier(max_items), OrderedDict[Key, float]()
    for call in calls:
        if isinstance(call, dict):
            memory.put(call)
            for key, raw in call.items():
                model[key] = raw
                model.move_to_end(key)
        else:
            assert asyncio.run(memory.get(call)) == {key: model[key] for key in call if key in model}
            for key in call:
                if key in model:
                    model.move_to_end(key)
        while len(model) > max_items:
            model.popitem(last=False)
        assert len(memory) == len(model)
    assert asyncio.run(memory.get(KEYS)) == model


def test_a_score_that_was_looked_up_outlives_one_that_was_not() -> None:
    memory = tier(2)
    memory.put({b"a": 1.0, b"b": 2.0})
    asyncio.run(memory.get([b"a"]))
    memory.put({b"c": 3.0})
    assert asyncio.run(memory.get(KEYS)) == {b"a": 1.0, b"c": 3.0}


def test_lookups_are_counted_by_result() -> None:
    metrics = Metrics()
    memory = MemoryTier(10, metrics.score_cache)
    memory.put({b"a": 0.5})
    asyncio.run(memory.get([b"a", b"b", b"c"]))
    assert sample(metrics, 'agentprm_score_cache_lookups_total{result="hit",tier="memory"}') == 1
    assert sample(metrics, 'agentprm_score_cache_lookups_total{result="miss",tier="memory"}') == 2


def test_a_memory_that_is_off_counts_no_lookups() -> None:
    metrics = Metrics()
    asyncio.run(MemoryTier(0, metrics.score_cache).get([b"a"]))
    assert sample(metrics, 'agentprm_score_cache_lookups_total{result="miss",tier="memory"}') == 0


def test_the_near_tier_is_asked_first_and_learns_what_the_far_one_knew() -> None:
    near, far = tier(), tier()
    tiers = TieredCache(near, far)
    far.put({b"a": 1.0, b"b": 2.0})
    near.put({b"a": 1.5})
    assert asyncio.run(tiers.get([b"a", b"b", b"c"])) == {b"a": 1.5, b"b": 2.0}
    assert asyncio.run(near.get([b"b", b"c"])) == {b"b": 2.0}


def test_what_was_computed_goes_to_both_tiers() -> None:
    near, far = tier(), tier()
    TieredCache(near, far).put({b"a": 1.0})
    assert asyncio.run(near.get([b"a"])) == asyncio.run(far.get([b"a"])) == {b"a": 1.0}


def test_what_is_not_finite_is_not_kept() -> None:
    memory = tier()
    memory.put({b"a": math.nan, b"b": math.inf, b"c": 1.0})
    assert asyncio.run(memory.get(KEYS)) == {b"c": 1.0}
