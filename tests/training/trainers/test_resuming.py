"""A run that was killed while it wrote a state goes on to the weights of a run that was not."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentprm.errors import AgentPRMError
from tests.training.trainers.test_trainer import assert_same_weights
from tests.training.trainers.tiny import RECIPE, examples, run

LORA = replace(RECIPE, lora=2)
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.trainers import test_resuming, tiny
from training.trainers import state

synced, writes = state._sync, []

def sync(directory):
    writes.append(directory)
    if len(writes) == 4:
        (directory / state.OPTIMIZER).write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    synced(directory)

state._sync = sync
tiny.run(Path(sys.argv[1]), test_resuming.LORA, save_every=1)
"""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(killed)], timeout=100, check=False)
    assert ended.returncode == -9
    names = sorted(path.name for path in killed.iterdir())
    assert names[1:] == ["state-00000003"]
    assert names[0].startswith(".draft-")
    data = examples()
    resumed = run(killed, LORA, data=data)
    uninterrupted = run(whole, LORA, data=data)
    assert resumed.progress == uninterrupted.progress
    assert_same_weights(resumed, uninterrupted)
    assert [path.name for path in killed.iterdir()] == [path.name for path in whole.iterdir()]


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(AgentPRMError, match=r"belongs to another run: its recipe is .*, here it is"):
        run(tmp_path, LORA)


def test_a_disk_that_fills_keeps_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Path] = []

    def fill(draft: Path) -> None:
        writes.append(draft)
        if len(writes) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.trainers.state._sync", fill)
    complaint = "the state of update 3 cannot be written: .*No space left on device; .*state-00000002 is kept"
    with pytest.raises(AgentPRMError, match=complaint):
        run(tmp_path, save_every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000002"]
    assert run(tmp_path, save_every=1).progress.updates > 3
