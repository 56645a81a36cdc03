"""``python -m training train``: what is refused, and that kills and processes do not change what is trained."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.end_to_end.conftest import ROOT
from tests.training.refunds import make_base, write_chats
from training.__main__ import run


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``chats.jsonl`` and ``base``."""
    path = tmp_path_factory.mktemp("given")
    write_chats(path / "chats.jsonl")
    make_base(path / "base", (path / "chats.jsonl").read_text())
    return path


def options(given: Path, into: Path, *more: str, rollouts: Path | None = None, base: Path | None = None) -> list[str]:
    chosen = {
        "rollouts": rollouts or given / "chats.jsonl",
        "base": base or given / "base",
        "name": "mine",
        "version": 1,
        "store": into / "store",
        "output": into / "run",
        "lr": 3e-3,
        "tokens-per-update": 300,
        "tokens-per-forward": 120,
    }
    return ["train", *(text for name, value in chosen.items() for text in (f"--{name}", str(value))), *more]


def weights(into: Path) -> dict[str, torch.Tensor]:
    return load_file(into / "store/mine/1/model.safetensors")


def test_a_dry_run_estimates_and_writes_nothing(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options(given, tmp_path, "--dry-run")) == 0
    told = capsys.readouterr().out
    assert "trajectories to train on" in told
    assert "memory: about" in told
    assert "time: about" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--as-adapter"], "--as-adapter needs --lora"),
        (["--labels", "mc"], "--labels mc needs the outcomes of at least one continuation"),
        (["--context-length", "50"], "10 of 20 trajectories have more than 50 tokens"),
        (["--context-length", "5000"], "a context of 5000 tokens is over the 1024 positions"),
        (["--track", "nothing"], "there is no tracker 'nothing'; there are: "),
        (["--labels", "psychic"], "Invalid value for '--labels'"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_sentence(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert run(options(given, tmp_path, *more, "--held-out", "0")) in (1, 2)
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_bad_rollouts_are_told_in_a_sentence(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (given / "chats.jsonl").read_text().splitlines()
    for name, content, complaint in [
        ("cut.jsonl", lines[0][:-9], "1 lines are bad, the first is"),
        ("outcome.jsonl", lines[0].replace('"outcome": 1.0', '"outcome": 1.5'), "outcome"),
        ("silent.jsonl", '{"messages": [{"role": "user", "content": "Hi"}], "outcome": 1}', "assistant"),
        ("query.jsonl", lines[0], "no trajectory is left to train on of 1"),
    ]:
        (tmp_path / name).write_text(content + "\n")
        assert run(options(given, tmp_path, "--held-out", "0.9", "--seed", "3", rollouts=tmp_path / name)) == 1
        assert complaint in capsys.readouterr().err


def test_a_base_without_a_chat_template_is_told_in_a_sentence(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (plain / name).write_bytes((given / "base" / name).read_bytes())
    assert run(options(given, tmp_path, base=plain)) == 1
    assert "has no chat template, so nothing says how a history becomes its text" in capsys.readouterr().err


def test_the_states_of_a_run_are_not_trained_over(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run/state-00000003").mkdir(parents=True)
    assert run(options(given, tmp_path)) == 1
    assert "holds the states of a run; go on with --resume, or take another --output" in capsys.readouterr().err


def test_a_run_goes_on_with_the_base_that_it_began_with_only(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(given / "base", base)
    arguments = ("--lora", "2", "--epochs", "1", "--held-out", "0", "--resume")
    assert run(options(given, tmp_path, *arguments, base=base)) == 0
    shutil.rmtree(tmp_path / "store")
    changed = {name: weight + 0.1 for name, weight in load_file(base / "model.safetensors").items()}
    save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
    assert run(options(given, tmp_path, *arguments, base=base)) == 1
    assert "belongs to another run: its base_digest is sha256:" in capsys.readouterr().err
    assert not (tmp_path / "store/mine").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_very_same_weights(given: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ("--epochs", "60", "--held-out", "0")
    command = [sys.executable, "-m", "training"]
    subprocess.run([*command, *options(given, whole, *arguments)], cwd=ROOT, check=True, timeout=300)
    process = subprocess.Popen([*command, *options(given, killed, *arguments)], cwd=ROOT)
    deadline = time.monotonic() + 200
    while not any((killed / "run").glob("state-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (killed / "store").exists()
    subprocess.run([*command, *options(given, killed, *arguments, "--resume")], cwd=ROOT, check=True, timeout=300)
    resumed = weights(killed)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, resumed[name]), name


@pytest.mark.slow
def test_two_processes_train_what_one_trains(given: Path, tmp_path: Path) -> None:
    arguments = ("--epochs", "3", "--held-out", "0.3", "--seed", "6")
    several = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "training"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for name, command in (("one", [sys.executable, "-m", "training"]), ("two", several)):
        subprocess.run(
            [*command, *options(given, tmp_path / name, *arguments)], cwd=ROOT, env=environment, check=True, timeout=300
        )
    two = weights(tmp_path / "two")
    for name, weight in weights(tmp_path / "one").items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=0)
