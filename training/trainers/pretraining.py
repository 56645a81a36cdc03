"""Next-token prediction on unlabelled rollouts, which teaches a new backbone the environment before values.

It takes the place of a large model's pretrained checkpoint. Outcomes are not used. The loss covers actions and
observations, not the task. Axes: B batch, T tokens, N tokens with a loss, H hidden, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from model_store.network.model import RewardModel
from training.data.dataset import NO_LOSS, Example, batches, collate, next_tokens
from training.trainers.optimizer import Schedule, new_optimizer, take_update


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Sizes, rates and random seed of the pre-training."""

    updates: int = 900
    batch_size: int = 32  # rollouts
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0


def pretrain(model: RewardModel, examples: Sequence[Example], config: PretrainConfig) -> list[float]:
    """Trains the backbone in place and returns the loss at each update, in nats a token.

    The output weights are the input embedding. The score head is left alone.
    """
    optimizer = new_optimizer(model.backbone, config.learning_rate, config.weight_decay)
    schedule = Schedule(config.learning_rate, config.updates)
    losses = []
    stream = batches(examples, config.batch_size, config.seed)
    for update in tqdm(range(config.updates), desc="language model", unit="update", mininterval=5):
        loss = next_token_loss(model, next(stream))
        take_update(optimizer, loss, schedule.rate(update))
        losses.append(loss.item())
    return losses


def next_token_loss(model: RewardModel, examples: Sequence[Example]) -> torch.Tensor:
    """Returns the mean cross entropy over the tokens after the task, in nats, as a scalar tensor."""
    hidden_BTH = model.hidden(collate(examples).token_ids_BT)
    following_BT = next_tokens(examples)
    learned_BT = following_BT != NO_LOSS
    embedding = model.backbone.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    logits_NV = hidden_BTH[learned_BT] @ embedding.weight.T
    return nn.functional.cross_entropy(logits_NV, following_BT[learned_BT])
