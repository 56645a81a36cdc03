"""Forwards that run out of memory, on the real allocator, a device that fails, and the count of free bytes."""

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from service.engine import device_memory
from service.engine.contract import DeviceLost, OutOfMemory
from service.engine.device_memory import within_memory
from service.engine.prefix_engine import PrefixEngine
from tests.service.engine.sharp_models import SHAPE, naive_scores, sharp_model

TOO_MANY = 2**62
"""More bytes than any machine has."""


def nothing() -> None:
    pass


def allocate() -> torch.Tensor:
    return torch.empty(TOO_MANY, dtype=torch.uint8)


def test_an_allocation_that_fails_raises_out_of_memory_and_frees_the_cache() -> None:
    freed: list[bool] = []
    with pytest.raises(OutOfMemory):
        within_memory(allocate, free_cache=lambda: freed.append(True))
    assert freed == [True]


def lack_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("fail", [allocate, lack_memory])
def test_the_tensors_of_a_forward_that_did_not_fit_are_freed_before_the_next_one(fail: Callable[[], object]) -> None:
    tensors: list[weakref.ref[torch.Tensor]] = []

    def forward() -> None:
        large = torch.zeros(1000)
        tensors.append(weakref.ref(large))
        fail()

    gc.disable()
    try:
        with pytest.raises(OutOfMemory) as raised:
            within_memory(forward, free_cache=nothing)
        assert raised.value.__context__ is None
        assert tensors[0]() is None, "the error keeps the frame that holds them"
    finally:
        gc.enable()


def test_a_failed_device_raises_device_lost() -> None:
    def forward() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might")

    with pytest.raises(
        DeviceLost, match=r"^the device has failed: CUDA error: an illegal memory access was encountered$"
    ):
        within_memory(forward, free_cache=nothing)


def test_any_other_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="tensor size"):
        within_memory(lambda: torch.zeros(2) @ torch.zeros(3), free_cache=nothing)


def test_an_engine_out_of_memory_empties_its_cache_and_scores_the_next_batch() -> None:
    model = sharp_model(Qwen2Config)
    engine = PrefixEngine(deepcopy(model), cache_bytes=10**9, context_length=SHAPE["max_position_embeddings"])
    sequences = [(1, 2, 3), (1, 2, 4)]
    for end in (1, 2, 3):
        engine.score([sequences[0][:end]], [[0]])
    assert engine.prefix_cache.used_bytes
    assert engine.prefix_cache.joined_bytes
    hook = engine._model.register_forward_pre_hook(lambda *_: allocate())
    with pytest.raises(OutOfMemory):
        engine.score(sequences, [[2], [2]])
    engine.prefix_cache.check()
    assert (engine.prefix_cache.used_bytes, engine.prefix_cache.joined_bytes, engine._joined_kv.bytes) == (0, 0, 0)
    hook.remove()
    scored = engine.score(sequences, [[2], [2]])
    expected = [naive_scores(model, token_ids)[2] for token_ids in sequences]
    assert [scores.raw[0] for scores in scored] == pytest.approx(expected, abs=1e-5)


def test_free_bytes_on_a_cpu_are_the_smaller_of_what_machine_and_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   5000 kB\n")
    monkeypatch.setattr(device_memory, "MEMINFO", meminfo)
    monkeypatch.setattr(device_memory, "CGROUP", tmp_path)
    assert device_memory.free_bytes("cpu") == 5000 * 1024, "no limit at all"
    (tmp_path / "memory.max").write_text("max\n")
    assert device_memory.free_bytes("cpu") == 5000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\nactive_file 50000\ninactive_file 150000\n")
    assert device_memory.free_bytes("cpu") == 450_000
    meminfo.unlink()
    (tmp_path / "memory.max").unlink()
    assert device_memory.free_bytes("cpu") is None, "unknown"
