"""The device's and the machine's memory: a forward that does not fit into it, and giving back what is not used."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import torch

from service.engine.contract import DeviceLost, OutOfMemory

T = TypeVar("T")
Memory = dict[str, dict[str, int]]
"""Bytes by device and kind: allocated, reserved, total."""

MEMINFO: Final = Path("/proc/meminfo")
CGROUP: Final = Path("/sys/fs/cgroup")

_CPU_ALLOCATOR: Final = "DefaultCPUAllocator"  # torch has no class of its own for its failures on a CPU


def within_memory(compute: Callable[[], T], *, give_up: Callable[[], None]) -> T:
    """What ``compute`` returns; after one that lacked memory, what could be given up for the next is.

    Raises:
        OutOfMemory: there was not enough of it.
        DeviceLost: the device has failed for good (an asynchronous CUDA fault leaves its context unusable).
    """
    try:
        return compute()
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except torch.AcceleratorError as error:
        raise DeviceLost(f"the device has failed: {str(error).partition(chr(10))[0]}") from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
    # Not in an except block: an exception keeps the frames it went through, and they the tensors that lack room.
    give_up()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory("the batch does not fit into the device's memory")


def gpu_memory() -> Memory:
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


def free_bytes(device: str) -> int | None:
    """What more the device can hold: on a CPU as the kernel and the container's limit have it. None: nobody knows."""
    if device != "cpu":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    known = [_available_on_machine(), _left_in_container()]
    return min((one for one in known if one is not None), default=None)


def _available_on_machine() -> int | None:
    if not MEMINFO.exists():  # not Linux
        return None
    lines = MEMINFO.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_in_container() -> int | None:
    """Of a limit of control groups version 2; file pages that nobody uses lately do not count, they give way."""
    limit = CGROUP / "memory.max"
    if not limit.exists() or (most := limit.read_text(encoding="ascii").strip()) == "max":
        return None
    used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
    pages = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    return int(most) - used + int(pages["inactive_file"])


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
