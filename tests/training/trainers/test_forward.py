"""Packed forwards equal rows alone, in promises, loss and gradients."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BloomConfig, Gemma2Config, LlamaConfig, PreTrainedConfig

from model_store.network.model import RewardModel, new_model, score_rows
from tests.training.trainers.tiny import apart, examples, model
from training.data.encoding import Encoded
from training.data.targets import Labels, targets
from training.trainers.forward import Forward, choose_forward
from training.trainers.loss import agentprm_loss, padded_targets
from training.trainers.preparing import prepare
from training.trainers.recipe import Recipe

DATA = examples(6)
SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "head_dim": 8,
}  # fmt: skip


def with_head(made: RewardModel) -> RewardModel:
    torch.nn.init.normal_(next(made.head.parameters()), generator=torch.Generator().manual_seed(1))
    return made


def windowed() -> RewardModel:
    layers: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 24, "layer_types": ["sliding_attention"]}
    return model(**layers)


def loss_and_gradients(forward: Forward, data: Sequence[Encoded]) -> tuple[float, list[Tensor]]:
    forward.model.zero_grad()
    promise_BS = forward.promises(data)
    pairs = zip(data, promise_BS.tolist(), strict=True)
    rows = [targets(example, promises[: example.steps], Labels(), 0.9) for example, promises in pairs]
    loss = agentprm_loss(promise_BS, *padded_targets(rows))
    total = loss.promise + loss.progress
    torch.autograd.backward(total)
    return total.item(), [
        torch.zeros(1) if weight.grad is None else weight.grad.clone() for weight in forward.model.parameters()
    ]


def assert_equal(left: tuple[float, list[Tensor]], right: tuple[float, list[Tensor]]) -> None:
    assert left[0] == pytest.approx(right[0], abs=1e-5)
    for one, other in zip(left[1], right[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "made",
    [model(), windowed(), with_head(new_model(LlamaConfig(**SIZES), seed=0))],
    ids=["qwen2", "sliding window", "llama"],
)
def test_loss_and_gradients_of_packed_rows_are_those_of_padded_rows(made: RewardModel) -> None:
    padded = loss_and_gradients(Forward(made, torch.float32, padded=True), DATA)
    with choose_forward(made, torch.float32, DATA) as forward:
        assert not forward.padded
        assert_equal(loss_and_gradients(forward, DATA), padded)


def test_one_pass_over_a_trajectory_is_one_forward_a_step() -> None:
    with choose_forward(model(), torch.float32, DATA) as forward:
        whole = loss_and_gradients(forward, DATA)
        assert_equal(loss_and_gradients(forward, [apart(example) for example in DATA]), whole)


def test_promises_are_those_of_serving_and_the_model_has_its_own_attention_again() -> None:
    made = model()
    with choose_forward(made, torch.float32, DATA) as forward:
        promise_BS = forward.promises(DATA)
    raw = score_rows(made, [example.rows[0].token_ids for example in DATA], [example.rows[0].reads for example in DATA])
    for example, promises, scores in zip(DATA, promise_BS, raw, strict=True):
        torch.testing.assert_close(promises[: example.steps], torch.sigmoid(torch.tensor(scores)), atol=1e-5, rtol=0)


def test_recomputed_activations_give_the_same_gradients() -> None:
    plain, recomputing = model(), model()
    prepare(recomputing, Recipe(gradient_checkpointing=True), torch.device("cpu"))
    assert recomputing.backbone.is_activation_checkpointing
    with (
        choose_forward(plain, torch.float32, DATA) as forward,
        choose_forward(recomputing, torch.float32, DATA) as other,
    ):
        assert_equal(loss_and_gradients(other, DATA), loss_and_gradients(forward, DATA))


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SIZES, attn_logit_softcapping=2.0),
        BloomConfig(vocab_size=512, hidden_size=16, n_layer=1, n_head=2),
    ],
    ids=["capped scores", "positions in a bias"],
)
def test_a_model_that_packed_attention_would_get_wrong_is_padded(config: PreTrainedConfig) -> None:
    made = with_head(new_model(config, seed=0))
    alone = [Forward(made, torch.float32, padded=True).promises([example])[0] for example in DATA]
    with choose_forward(made, torch.float32, DATA) as forward:
        assert forward.padded
        for example, promises, expected in zip(DATA, forward.promises(DATA), alone, strict=True):
            torch.testing.assert_close(promises[: example.steps], expected, atol=1e-5, rtol=0)
