"""The trainer on a model of one layer: what decides an update, and what stops a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BloomConfig

from agentprm.errors import AgentPRMError
from model_store.network.model import new_model
from tests.training.trainers.tiny import RECIPE, apart, examples, model, run
from training.trainers import trainer
from training.trainers.state import trained_weights
from training.trainers.trainer import Trained

DATA = examples()


def assert_same_weights(left: Trained, right: Trained, tolerance: float = 0.0) -> None:
    ours, theirs = trained_weights(left.model), trained_weights(right.model)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=tolerance, rtol=0)


def test_training_learns_its_outcomes_and_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=12, patience=12)
    first, again = (run(tmp_path / name, recipe, data=DATA) for name in ("first", "again"))
    losses = first.progress.losses
    assert sum(losses[-3:]) < 0.2 * sum(losses[:3])
    assert_same_weights(first, again)


def test_the_tokens_of_a_forward_and_the_rows_of_a_trajectory_change_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", replace(RECIPE, epochs=1, tokens_per_forward=10_000), data=DATA)
    parts = run(tmp_path / "parts", replace(RECIPE, epochs=1, tokens_per_forward=1), data=DATA)
    assert_same_weights(whole, parts, tolerance=1e-5)
    # Rows of their own are more tokens, so that all trajectories make one update in both runs.
    one_update = replace(RECIPE, epochs=1, tokens_per_update=100_000)
    rows = run(tmp_path / "rows", one_update, data=[apart(example) for example in DATA])
    assert_same_weights(rows, run(tmp_path / "row", one_update, data=DATA), tolerance=1e-5)


def test_an_adapter_is_trained_and_the_base_below_it_is_not(tmp_path: Path) -> None:
    base = model()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    trained = run(tmp_path, replace(RECIPE, lora=2), base, data=DATA)
    after = {name.replace(".base_layer", ""): weight for name, weight in trained.model.state_dict().items()}
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {"head.weight_H"}
    adapters = [weight for name, weight in trained_weights(trained.model).items() if "lora_B" in name]
    assert adapters
    assert all(weight.any() for weight in adapters)


def test_training_stops_without_a_gain_and_returns_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aucs, weights = [0.6, 0.9, 0.7, 0.8], list[dict[str, Tensor]]()
    measure = trainer._Run._measure

    def measured(ongoing: trainer._Run) -> None:
        weights.append(trained_weights(ongoing.model))
        measure(ongoing)

    monkeypatch.setattr(trainer._Run, "_measure", measured)
    monkeypatch.setattr(trainer, "step_auc", lambda *_: aucs[len(weights) - 1])
    stopped = run(tmp_path, replace(RECIPE, epochs=9, patience=2), data=DATA)
    assert stopped.progress.measured == aucs
    returned = trained_weights(stopped.model)
    same = [all(torch.equal(returned[name], one[name]) for name in returned) for one in weights]
    assert same == [False, True, False, False]


def test_a_promise_that_is_not_a_number_stops_the_run_and_names_its_trajectory(tmp_path: Path) -> None:
    broken, first = model(), DATA[0]
    others = {token for example in DATA[1:] for token in example.rows[0].token_ids}
    own = next(token for token in first.rows[0].token_ids if token not in others)
    embeddings: Any = broken.backbone.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[own] = torch.nan
    with pytest.raises(AgentPRMError, match=rf"the loss is NaN at update \d: promises of {first.name} are not finite"):
        run(tmp_path, made=broken, data=DATA)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(trainer._Run, "_loss", full)
    with pytest.raises(AgentPRMError, match="lower --tokens-per-forward, now 300; --gradient-checkpointing"):
        run(tmp_path, data=DATA)


@pytest.mark.parametrize("part", ["prepare", "choose_forward", "clip_and_step"])
def test_out_of_memory_beside_the_forwards_of_updates_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, part, full)
    with pytest.raises(AgentPRMError, match="for the weights, their optimiser or the longest trajectory; --lora with"):
        run(tmp_path, data=DATA)


def test_rows_that_are_padded_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_epoch = replace(RECIPE, epochs=1)
    assert run(tmp_path / "packed", one_epoch, data=DATA).packed
    assert "padded" not in capsys.readouterr().out
    bloom = new_model(BloomConfig(vocab_size=512, hidden_size=16, n_layer=1, n_head=2), seed=0)
    assert not run(tmp_path / "padded", one_epoch, bloom, data=DATA).packed
    assert "note: packed rows would get a bloom wrong, so rows are padded" in capsys.readouterr().out


@pytest.mark.parametrize("lora", [None, 2])
def test_arithmetic_in_bfloat16_trains_float32_weights(tmp_path: Path, lora: int | None) -> None:
    one_epoch = replace(RECIPE, epochs=1, lora=lora)
    exact = run(tmp_path / "float32", one_epoch, data=DATA)
    trained = run(tmp_path / "bfloat16", replace(one_epoch, dtype="bfloat16"), data=DATA)
    assert trained.packed
    assert {weight.dtype for weight in trained_weights(trained.model).values()} == {torch.float32}
    assert trained.progress.losses == pytest.approx(exact.progress.losses, rel=0.1)
    assert trained.progress.losses != exact.progress.losses
