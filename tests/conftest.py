"""One torch thread: the models of the tests are small, and threads that spin for work starve a shared machine.

A test that is over its limit tells where every thread and every task of asyncio waits.
"""

import asyncio
import gc
import io
import os
from typing import Any

import pytest_timeout
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(1)
# How long an example takes says something of the machine and nothing of the property.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def unfinished_tasks() -> str:
    """The stack of each task that has not ended, of the loops of all threads."""
    told = io.StringIO()
    # Only the loop that runs here could be asked for its tasks.
    for one in gc.get_objects():
        if issubclass(type(one), asyncio.Task) and not one.done():
            one.print_stack(file=told)
    return told.getvalue()


def dump_stacks(terminal: Any) -> None:
    """Adds the tasks to what ``pytest-timeout`` tells of the threads; it offers no hook."""
    dump_threads(terminal)
    terminal.sep("~", title="Unfinished tasks of asyncio")
    terminal.write(unfinished_tasks())


dump_threads = pytest_timeout.dump_stacks
pytest_timeout.dump_stacks = dump_stacks
