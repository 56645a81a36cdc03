"""Sets one torch thread: the models of the tests are small, and spinning threads starve a shared machine.

A test that exceeds its time limit prints where every thread and every asyncio task waits.
"""

import asyncio
import gc
import io
import os
from typing import Any

import pytest_timeout
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
# The duration of an example depends on the machine and says nothing about the property.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def unfinished_tasks() -> str:
    """The stack of each task that has not ended, of the loops of all threads."""
    stacks = io.StringIO()
    # asyncio lists the tasks of the running loop only.
    for task in gc.get_objects():
        if issubclass(type(task), asyncio.Task) and not task.done():
            task.print_stack(file=stacks)
    return stacks.getvalue()


def dump_stacks(terminal: Any) -> None:
    """Adds the tasks to the thread stacks of ``pytest-timeout``, which offers no hook."""
    dump_threads(terminal)
    terminal.sep("~", title="Unfinished tasks of asyncio")
    terminal.write(unfinished_tasks())


dump_threads = pytest_timeout.dump_stacks
pytest_timeout.dump_stacks = dump_stacks
