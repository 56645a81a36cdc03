"""Gives memory that is no longer used back to the device and the machine."""

import ctypes
import gc

import torch


def gpu_memory() -> dict[str, dict[str, int]]:
    """Bytes by device and kind, of the GPUs that this process uses."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # to ask on would take a GPU's memory
        return {}
    used = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
    return {
        f"cuda:{index}": {
            "allocated": torch.cuda.memory_allocated(index),
            "reserved": torch.cuda.memory_reserved(index),
            "total": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in used
    }


def release_memory() -> None:
    """After a model has left: collects what refers to itself, then empties what allocators keep for later.

    Stops this process for some 0.1 s. What is left is frozen again, as after the start.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed pages, other C libraries do not
    if trim is not None:
        trim(0)
