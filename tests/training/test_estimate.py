"""The dry run: what a run will need, without training or publishing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agentprm.errors import AgentPRMError
from model_store.format.store import Store
from tests.training.trainers.tiny import rollouts
from training.base_model import load_base
from training.bundled import STORE
from training.estimate import estimate
from training.run import Run
from training.trainers.preparing import prepare
from training.trainers.recipe import Recipe


def plan(directory: Path, recipe: Recipe) -> Run:
    return Run(
        base="demo", store=Store(STORE), name="mine", version="1", output=directory / "run", recipe=recipe, held_out=0.3
    )


def trained(path: Path, recipe: Recipe) -> int:
    """Weights of the backbone that the trainer would train."""
    model = load_base("demo", path, Store(STORE), dtype="float32").model
    prepare(model, recipe, torch.device("cpu"))
    return sum(weight.numel() for weight in model.backbone.parameters() if weight.requires_grad)


def test_a_dry_run_tells_tokens_weights_memory_and_time(tmp_path: Path) -> None:
    whole, adapter = (trained(tmp_path / name, Recipe(lora=rank)) for name, rank in (("whole", None), ("adapter", 2)))
    lines = estimate(plan(tmp_path, Recipe()), rollouts(24)).splitlines()
    assert "trajectories to train on" in lines[0]
    assert lines[2] == f"{whole:,} weights, {whole:,} trained"
    assert lines[3].startswith("memory: about ")
    assert lines[-1].startswith("time: about ")
    assert f"{whole:,} weights, {adapter:,} trained" in estimate(plan(tmp_path, Recipe(lora=2)), rollouts(24))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path) -> None:
    labelled = replace(Recipe().labels, method="mc")
    with pytest.raises(AgentPRMError, match="--labels mc needs"):
        estimate(plan(tmp_path, Recipe(labels=labelled)), rollouts(24))
