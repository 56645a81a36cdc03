"""Two processes that share an update, over gloo on the CPU, take the update of one."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from testbed.processes import free_port
from tests.training.trainers.tiny import RECIPE, run
from training.trainers.state import WEIGHTS

SHARED = replace(RECIPE, epochs=1)
PROCESS = """
import sys
from pathlib import Path
from tests.training.trainers import test_processes, tiny

tiny.run(Path(sys.argv[1]), test_processes.SHARED)
"""


@pytest.mark.slow
def test_two_processes_take_the_updates_of_one(tmp_path: Path) -> None:
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "two")],
            env={**os.environ, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port},
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        assert [process.wait(timeout=100) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    run(tmp_path / "one", SHARED)
    one, two = (load_file(next((tmp_path / name).glob("state-*")) / WEIGHTS) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=0)
