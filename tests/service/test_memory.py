"""A forward that does not fit into memory, on the real allocator, and one whose device fails."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from transformers import Qwen2Config

from service.engine import PrefixEngine
from service.faults import DeviceLost, OutOfMemory
from service.memory import within_memory
from tests.service.sharp_models import SHAPE, naive_scores, sharp_model

TOO_MANY = 2**62
"""Bytes that no machine has."""


def nothing() -> None:
    pass


def allocate() -> torch.Tensor:
    return torch.empty(TOO_MANY, dtype=torch.uint8)


def test_what_torch_cannot_allocate_is_out_of_memory_and_the_rest_is_given_up() -> None:
    given_up: list[bool] = []
    with pytest.raises(OutOfMemory):
        within_memory(allocate, give_up=lambda: given_up.append(True))
    assert given_up == [True]


def lack_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("fail", [allocate, lack_memory])
def test_the_tensors_of_a_forward_that_did_not_fit_are_gone_before_the_next_one(fail: Callable[[], object]) -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def forward() -> None:
        large = torch.zeros(1000)
        tensors.append(weakref.ref(large))
        fail()

    gc.disable()
    try:
        with pytest.raises(OutOfMemory) as raised:
            within_memory(forward, give_up=nothing)
        assert raised.value.__context__ is None
        assert tensors[0]() is None, "the error must not keep the frame that holds them"
    finally:
        gc.enable()


def test_a_failed_device_is_lost() -> None:
    def forward() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might")

    with pytest.raises(
        DeviceLost, match=r"^the device has failed: CUDA error: an illegal memory access was encountered$"
    ):
        within_memory(forward, give_up=nothing)


def test_another_failure_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="tensor size"):
        within_memory(lambda: torch.zeros(2) @ torch.zeros(3), give_up=nothing)


def test_an_engine_without_room_gives_up_what_it_held_and_scores_the_next_batch() -> None:
    model = sharp_model(Qwen2Config)
    engine = PrefixEngine(deepcopy(model), cache_bytes=10**9, longest=SHAPE["max_position_embeddings"])
    sequences = [(1, 2, 3), (1, 2, 4)]
    engine.score([sequences[0]], [[2]])
    assert engine.prefix_cache.used_bytes
    hook = engine._model.register_forward_pre_hook(lambda *_: allocate())
    with pytest.raises(OutOfMemory):
        engine.score(sequences, [[2], [2]])
    engine.prefix_cache.check()
    assert engine.prefix_cache.used_bytes == 0
    hook.remove()
    scored = engine.score(sequences, [[2], [2]])
    assert [one.raw[0] for one in scored] == pytest.approx([naive_scores(model, one)[2] for one in sequences], abs=1e-5)
