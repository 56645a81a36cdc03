"""Gives memory that is no longer used back to the device and the machine."""

import ctypes
import gc

import torch


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
