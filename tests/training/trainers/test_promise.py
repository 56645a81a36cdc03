"""Algorithm 1 on a model small enough to check by hand."""

import pytest
import torch
from transformers import Qwen2Config

from model_store.network.model import RewardModel, new_model
from training.data.dataset import NO_LOSS, Batch, Example, batches, collate, next_tokens
from training.data.labels import promise_targets
from training.trainers.loss import agentprm_loss
from training.trainers.optimizer import Schedule
from training.trainers.pretraining import PretrainConfig, pretrain
from training.trainers.promise import TrainConfig, step_promises, targets, train

EXAMPLES = [
    Example(token_ids=[5, 6, 2, 7, 3, 8, 4, 9, 3, 8, 4, 9, 3], step_ends=[6, 10], task_length=3, outcome=1.0),
    Example(token_ids=[5, 2, 7, 3, 9, 4, 9, 3], step_ends=[5], task_length=2, outcome=0.0),
    Example(
        token_ids=[6, 2, 7, 3, 9, 4, 8, 3, 8, 4, 9, 3, 6, 4, 7, 3], step_ends=[5, 9, 13], task_length=2, outcome=None
    ),
]


def tiny() -> RewardModel:
    config = Qwen2Config(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    return new_model(config, seed=0)


def test_promises_are_read_at_the_step_ends() -> None:
    model, batch = tiny(), collate(EXAMPLES)
    torch.nn.init.normal_(next(model.head.parameters()))
    promise_BS = step_promises(model, batch)
    for row, example in enumerate(EXAMPLES):
        alone = torch.sigmoid(model(torch.tensor([example.token_ids])))[0, example.step_ends]
        assert promise_BS[row, : len(example.step_ends)].tolist() == pytest.approx(alone.tolist(), abs=1e-5)


def test_targets_follow_the_current_promises_and_how_each_trajectory_ended() -> None:
    batch = collate(EXAMPLES)
    promise_BS = torch.tensor([[0.2, 0.4, 0.9], [0.5, 0.9, 0.9], [0.1, 0.2, 0.3]])
    config = TrainConfig(gamma=0.9)
    target_BS, labelled_BS = targets(promise_BS, batch, config, lam=0.5)
    assert labelled_BS.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert target_BS[0, :2].tolist() == pytest.approx(promise_targets([0.2, 0.4], 1.0, gamma=0.9, lam=0.5))
    assert target_BS[1, :1].tolist() == pytest.approx([0.0])
    assert target_BS[2].tolist() == pytest.approx(promise_targets([0.1, 0.2, 0.3], None, gamma=0.9, lam=0.5))


def test_an_outcome_model_learns_from_the_last_step_of_terminated_trajectories_only() -> None:
    config = TrainConfig(labels="final_outcome")
    target_BS, labelled_BS = targets(torch.full((3, 3), 0.5), collate(EXAMPLES), config, lam=1)
    assert labelled_BS.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert target_BS[0, 1] == 1


def test_the_loss_is_that_of_equations_4_and_9() -> None:
    promise_BS = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.0, 0.0]])
    target_BS = torch.tensor([[0.2, 0.2, 0.2], [1.0, 0.0, 0.0]])
    labelled_BS = torch.tensor([[True, True, True], [True, False, False]])
    loss = agentprm_loss(promise_BS, target_BS, labelled_BS)
    assert loss.promise.item() == pytest.approx(0.5 * (0.1**2 + 0.4**2 + 0.1**2 + 0.5**2) / 4)
    assert loss.progress.item() == pytest.approx(0.5 * (0.5**2 + 0.3**2) / 2)


def test_no_gradient_flows_through_the_targets() -> None:
    promise_BS = torch.tensor([[0.1, 0.6]], requires_grad=True)
    batch = Batch(torch.zeros(1, 2), torch.tensor([[0, 1]]), torch.tensor([[True, True]]), [1.0])
    target_BS, _ = targets(promise_BS, batch, TrainConfig(), lam=0.5)
    assert not target_BS.requires_grad


def test_lambda_falls_from_one_to_its_value() -> None:
    config = TrainConfig(updates=100, lam=0.8, lam_warm_up=0.2)
    assert config.lam_at(0) == 1
    assert config.lam_at(10) == pytest.approx(0.9)
    assert config.lam_at(20) == config.lam_at(99) == pytest.approx(0.8)


def test_training_learns_its_outcomes_and_the_same_seed_gives_the_same_weights() -> None:
    runs = []
    for _ in range(2):
        model = tiny()
        losses = train(model, EXAMPLES[:2] * 4, TrainConfig(updates=60, batch_size=8, learning_rate=1e-2, lam=1.0))
        runs.append(model.state_dict())
    assert losses[-1][0] < 0.1 * losses[0][0]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_pretraining_learns_what_follows_and_leaves_the_head_alone() -> None:
    model = tiny()
    losses = pretrain(model, EXAMPLES * 4, PretrainConfig(updates=60, batch_size=8, learning_rate=1e-2))
    assert losses[-1] < 0.5 * losses[0]
    assert not next(model.head.parameters()).any()


def test_the_language_model_loss_leaves_out_the_task_and_the_padding() -> None:
    following_BT = next_tokens(EXAMPLES[:2])
    assert following_BT[0].tolist() == [NO_LOSS, NO_LOSS, 7, 3, 8, 4, 9, 3, 8, 4, 9, 3, NO_LOSS]
    assert following_BT[1].tolist() == [NO_LOSS, 7, 3, 9, 4, 9, 3, *[NO_LOSS] * 6]


def test_every_example_comes_once_an_epoch_in_an_order_of_the_seed() -> None:
    examples = [Example([index], [0], 0, 0.0) for index in range(12)]
    first, again, other = (batches(examples, 4, seed) for seed in (1, 1, 2))
    epoch = [next(first) for _ in range(3)]
    assert sorted(example.token_ids[0] for batch in epoch for example in batch) == list(range(12))
    assert epoch == [next(again) for _ in range(3)] != [next(other) for _ in range(3)]


def test_too_few_examples_for_a_batch_are_an_error() -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        next(batches(EXAMPLES, 4, 0))


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    schedule = Schedule(peak=1.0, updates=100)
    assert schedule.rate(0) == pytest.approx(0.2)
    assert max(schedule.rate(update) for update in range(100)) <= 1
    assert schedule.rate(99) < 0.001
