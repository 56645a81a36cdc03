"""The trainer on a model of one layer: packed equals alone, and a run that is ended goes on as if it were not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BloomConfig

from agentprm.errors import AgentPRMError
from model_store.network.model import RewardModel, new_model
from model_store.text.chat_renderer import ReadTokens
from tests.training.trainers.tiny import RECIPE, examples, model, run
from training.data.encoding import Encoded
from training.data.labels import promise_targets
from training.data.targets import Labels
from training.trainers.forward import Forward, choose_forward
from training.trainers.loss import agentprm_loss, counts, padded_targets
from training.trainers.state import Progress, States, trained_weights

EXACT = 1e-5


def loss_and_gradients(made: RewardModel, forward: Forward, parts: list[list[Encoded]]) -> tuple[Tensor, list[Tensor]]:
    """L_Q + L_A of all parts as one update, towards fixed targets."""
    rows = {e.name: promise_targets([0.5] * e.steps, e.outcome, gamma=1.0, lam=0.9) for p in parts for e in p}
    over = counts(padded_targets([list(row) for row in rows.values()])[1])
    made.zero_grad()
    total = torch.zeros(())
    for part in parts:
        target_BS, labelled_BS = padded_targets([rows[example.name] for example in part])
        loss = agentprm_loss(forward.promises(part), target_BS, labelled_BS, over)
        torch.autograd.backward(loss.promise + loss.progress)
        total += (loss.promise + loss.progress).detach()
    return total, [weight.grad.clone() for weight in made.parameters() if weight.grad is not None]


@pytest.mark.parametrize("changes", [{}, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}])
def test_packed_trajectories_have_the_loss_and_the_gradients_that_they_have_alone(changes: dict[str, Any]) -> None:
    made, chosen = model(**changes), examples(6)
    alone = loss_and_gradients(made, Forward(made, torch.float32, padded=True), [[example] for example in chosen])
    with choose_forward(made, torch.float32, chosen) as forward:
        assert not forward.padded
        packed = loss_and_gradients(made, forward, [chosen])
    torch.testing.assert_close(packed[0], alone[0], atol=EXACT, rtol=0)
    for ours, theirs in zip(packed[1], alone[1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=EXACT, rtol=0)


def test_one_pass_over_a_trajectory_gives_what_a_forward_for_each_step_gives() -> None:
    made, (example, *_) = model(), examples(2)
    (row,) = example.rows
    each = tuple(ReadTokens(row.token_ids[: read + 1], [read]) for read in row.reads)
    with choose_forward(made, torch.float32, [example]) as forward, torch.no_grad():
        torch.testing.assert_close(
            forward.promises([example]), forward.promises([replace(example, rows=each)]), atol=EXACT, rtol=0
        )


def test_a_model_whose_attention_cannot_be_packed_is_trained_on_padded_rows() -> None:
    made = new_model(BloomConfig(vocab_size=512, hidden_size=16, n_layer=1, n_head=2), seed=0)
    with choose_forward(made, torch.float32, examples(4)) as forward:
        assert forward.padded


def test_how_an_update_is_cut_into_forwards_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for tokens in (120, 100_000):
        made = model()
        run(tmp_path / str(tokens), replace(RECIPE, epochs=1, tokens_per_forward=tokens), made)
        weights.append(trained_weights(made))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=EXACT, rtol=0)


def test_training_learns_which_trajectories_succeed(tmp_path: Path) -> None:
    trained = run(tmp_path, replace(RECIPE, epochs=12, patience=12))
    losses = trained.progress.losses
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert trained.packed


class Ended(BaseException):
    """Ends a run where it stands, as a kill does."""


def test_a_run_that_was_ended_goes_on_to_the_very_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    run(tmp_path / "whole", made=whole, save_every=1)
    save = States.save

    def ending(states: States, progress: Progress, *rest: Any) -> None:
        save(states, progress, *rest)
        if progress.updates == 2:
            raise Ended

    monkeypatch.setattr(States, "save", ending)
    with pytest.raises(Ended):
        run(tmp_path / "ended", made=model(), save_every=1)
    monkeypatch.setattr(States, "save", save)
    resumed = model(seed=7)  # its weights come from the state
    run(tmp_path / "ended", made=resumed, save_every=1)
    for name, weight in trained_weights(whole).items():
        assert torch.equal(weight, trained_weights(resumed)[name]), name


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(AgentPRMError, match="belongs to another run: its recipe is"):
        run(tmp_path, replace(RECIPE, seed=1))


def test_a_disk_that_fills_keeps_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, replace(RECIPE, epochs=1))
    (before,) = tmp_path.iterdir()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    states = States(tmp_path, {"recipe": RECIPE.to_json()})
    monkeypatch.setattr("training.trainers.state.save_file", full)
    made = model()
    with pytest.raises(AgentPRMError, match=f"No space left on device; {before} is kept"):
        states.save(Progress(9), made, torch.optim.AdamW(made.parameters()), None)
    assert list(tmp_path.iterdir()) == [before]


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_trajectory(tmp_path: Path) -> None:
    made, data = model(), examples()
    odd = next(token for token in data[0].rows[0].token_ids if all(token not in e.rows[0].token_ids for e in data[1:]))
    with torch.no_grad():
        embeddings: Any = made.backbone.get_input_embeddings()
        embeddings.weight[odd] = float("nan")
    with pytest.raises(
        AgentPRMError, match=rf"the loss is NaN at update \d: promises of {data[0].name} are not finite"
    ):
        run(tmp_path, made=made, data=data)


def test_memory_that_runs_out_is_told_with_the_option_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.trainers.trainer._Run._loss", too_much)
    with pytest.raises(AgentPRMError, match=r"out of memory in a forward of .* tokens: lower --tokens-per-forward"):
        run(tmp_path)


def test_training_stops_after_epochs_without_a_better_auc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aucs = iter([0.6, 0.8, 0.7, 0.7, 0.9])
    monkeypatch.setattr("training.trainers.trainer._Run._auc", lambda _: next(aucs))
    progress = run(tmp_path, replace(RECIPE, epochs=5, patience=2)).progress
    assert progress.measured == [0.6, 0.8, 0.7, 0.7]
    assert progress.best_epoch == 1


def test_an_adapter_is_all_of_the_backbone_that_is_trained(tmp_path: Path) -> None:
    made = model()
    before = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    run(tmp_path, replace(RECIPE, lora=2), made)
    after = {name.replace(".base_layer.", "."): weight for name, weight in made.named_parameters()}
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {"head.weight_H"}
    assert any(".lora_B." in name and weight.abs().sum() > 0 for name, weight in after.items())


def test_what_a_method_needs_is_asked_for_before_training(tmp_path: Path) -> None:
    with pytest.raises(AgentPRMError, match="--labels mc needs the outcomes of at least one continuation"):
        run(tmp_path, replace(RECIPE, labels=Labels(method="mc")))
    with pytest.raises(AgentPRMError, match="--labels steps needs a label, or null, for every step"):
        run(tmp_path, replace(RECIPE, labels=Labels(method="steps")))
