"""The prefix engine after a failed call: nothing stays locked, and the next call is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest

from model_store.network.model import RewardModel
from service.engine.prefix_engine import PrefixEngine
from tests.service.engine.references import CONTEXT_LENGTH, UNBOUNDED, Reference, assert_at_rest, new_tokens


class OutOfMemory(Exception):
    pass


@contextmanager
def failing(model: RewardModel, forwards: int) -> Iterator[None]:
    """Makes the model raise in the forward after ``forwards`` successful ones."""
    left = iter(range(forwards))

    def forward(*_: object) -> None:
        if next(left, None) is None:
            raise OutOfMemory

    with model.backbone.get_submodule("layers.1").register_forward_pre_hook(forward):
        yield


@pytest.mark.parametrize("forwards", range(4))
@pytest.mark.parametrize("cache_bytes", [0, UNBOUNDED])
def test_after_a_failed_forward_nothing_is_locked_and_the_next_call_is_right(
    qwen2: Reference, forwards: int, cache_bytes: int
) -> None:
    model = deepcopy(qwen2.model)
    engine = PrefixEngine(model, cache_bytes=cache_bytes, context_length=CONTEXT_LENGTH)
    engine.row_tokens = 4
    qwen2.assert_scored(engine, [(1, 2, 3, 4, 5)])
    batch = [(1, 2, 3, 9, 9, 9), (1, 2, 3, 9, 8), (6,) * 11]
    with failing(model, forwards), pytest.raises(OutOfMemory):
        engine.score(batch, [[0]] * 3)
    assert_at_rest(engine)
    new = new_tokens(engine, batch)
    assert qwen2.assert_scored(engine, batch) == new
    assert_at_rest(engine)


def test_a_call_with_invalid_arguments_leaves_nothing_locked(qwen2: Reference) -> None:
    engine = qwen2.engine()
    with pytest.raises(ValueError, match="empty sequence"):
        engine.score([(1, 2), ()], [[1], []])
    with pytest.raises(IndexError):
        engine.score([(1, 2), (3,)], [[1], [1]])
    with pytest.raises(ValueError, match="shorter"):
        engine.score([(1, 2), (3,)], [[1]])
    assert_at_rest(engine)
    qwen2.assert_scored(engine, [(1, 2), (3,)])
