"""Memory of the device and of the machine: out-of-memory errors, free bytes, and release of unused memory."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import torch

from service.engine.contract import DeviceLost, OutOfMemory

T = TypeVar("T")
Memory = dict[str, dict[str, int]]
"""Bytes by device and kind (allocated, reserved, total)."""

MEMINFO: Final = Path("/proc/meminfo")
CGROUP: Final = Path("/sys/fs/cgroup")

_CPU_ALLOCATOR: Final = "DefaultCPUAllocator"  # torch has no error class for a failed CPU allocation


def within_memory(compute: Callable[[], T], *, free_cache: Callable[[], None]) -> T:
    """Runs ``compute``. When memory runs out, calls ``free_cache`` and raises OutOfMemory.

    Raises:
        OutOfMemory: the device or the machine lacks memory; a smaller batch may fit.
        DeviceLost: the device has failed for good. An asynchronous CUDA fault leaves its context unusable.
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
    # Outside the except blocks: a live exception keeps its frames, and their tensors would still take up memory.
    free_cache()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory("the batch does not fit into the device's memory")


def gpu_memory() -> Memory:
    """Bytes by device and kind, for the GPUs on which this process has reserved memory. Callable from any thread."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # the calls below would create a CUDA context
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
    """Free bytes on the device; None if unknown.

    On a CPU this is the smaller of what the kernel reports as available and what the container's limit leaves.
    """
    if device != "cpu":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    limits = [_available_on_machine(), _left_in_container()]
    return min((limit for limit in limits if limit is not None), default=None)


def _available_on_machine() -> int | None:
    if not MEMINFO.exists():  # not Linux
        return None
    lines = MEMINFO.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_in_container() -> int | None:
    """Bytes left below the limit of control groups version 2; None without a limit.

    Inactive file pages count as free, because the kernel drops them first.
    """
    limit_file = CGROUP / "memory.max"
    if not limit_file.exists() or (limit := limit_file.read_text(encoding="ascii").strip()) == "max":
        return None
    used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
    pages = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    return int(limit) - used + int(pages["inactive_file"])


def release_memory() -> None:
    """Returns the memory of an unloaded model to the system: collects cycles, then empties the allocators' caches.

    Stops this process for about 0.1 s. The surviving objects are frozen again, as they were after start-up.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()


def trim_heap() -> None:
    """Returns free pages of the heap to the system; takes up to some milliseconds and lets other threads run."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc keeps freed pages, and only it has this call
    if trim is not None:
        trim(0)
