"""Algorithm 1 of AgentPRM (arXiv 2511.08325): L_Q + beta * L_A (eq. 10) on whole trajectories.

The current model scores each batch. Promise targets are recomputed from those scores (TD + GAE, detached), and the
same forward pass is trained towards them. Axes: B batch, S steps, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from model_store.network.model import RewardModel
from training.data.dataset import Batch, Example, batches, collate
from training.data.labels import final_outcome_targets, promise_targets
from training.trainers.loss import agentprm_loss, padded_targets
from training.trainers.optimizer import Schedule, new_optimizer, take_update


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Labels, sizes, rates and random seed of Algorithm 1; ``lam`` and ``beta`` are the paper's (section 4.1)."""

    labels: Literal["td_gae", "final_outcome"] = "td_gae"  # final_outcome: an outcome reward model (ORM), the baseline
    updates: int = 360
    batch_size: int = 32  # whole trajectories
    learning_rate: float = 7e-4
    weight_decay: float = 0.05
    gamma: float = 1.0  # discount; 1 keeps promise a success probability
    lam: float = 0.95  # GAE lambda
    lam_warm_up: float = 0.2  # share of the updates over which lambda falls from 1: early promises are noise
    beta: float = 1.0  # weight of the progress loss L_A
    seed: int = 0

    def lam_at(self, update: int) -> float:
        """Returns lambda at an update: it falls linearly from 1 to ``lam`` over the warm-up."""
        passed = min(1.0, update / max(1.0, self.lam_warm_up * self.updates))
        return 1 + (self.lam - 1) * passed


def train(model: RewardModel, examples: Sequence[Example], config: TrainConfig) -> list[tuple[float, float]]:
    """Trains the whole model in place and returns (L_Q, L_A) at each update."""
    optimizer = new_optimizer(model, config.learning_rate, config.weight_decay)
    schedule = Schedule(config.learning_rate, config.updates)
    stream = batches(examples, config.batch_size, config.seed)
    losses = []
    for update in tqdm(range(config.updates), desc=config.labels, unit="update", mininterval=5):
        batch = collate(next(stream))
        promise_BS = step_promises(model, batch)
        target_BS, labelled_BS = targets(promise_BS, batch, config, config.lam_at(update))
        loss = agentprm_loss(promise_BS, target_BS, labelled_BS)
        take_update(optimizer, loss.promise + config.beta * loss.progress, schedule.rate(update))
        losses.append((loss.promise.item(), loss.progress.item()))
    return losses


def step_promises(model: RewardModel, batch: Batch) -> Tensor:
    """Returns the promise at each step end [B, S], from one pass over the whole trajectories; undefined at padding."""
    raw_BT: Tensor = model(batch.token_ids_BT)
    return torch.sigmoid(raw_BT.gather(1, batch.step_ends_BS))


def targets(promise_BS: Tensor, batch: Batch, config: TrainConfig, lam: float) -> tuple[Tensor, Tensor]:
    """Returns the detached targets [B, S] and a mask [B, S] of the steps that have one.

    ``td_gae``: Qhat of eqs. 12-14 at every step, from ``promise_BS``. ``final_outcome``: the outcome at the final step
    of terminated trajectories.
    """
    rows: list[list[float | None]] = []
    for promises, is_step, outcome in zip(promise_BS.tolist(), batch.is_step_BS, batch.outcomes, strict=True):
        steps = int(is_step.sum())
        if config.labels == "td_gae":
            rows.append(list(promise_targets(promises[:steps], outcome, gamma=config.gamma, lam=lam)))
        elif outcome is None:
            rows.append([None] * steps)
        else:
            rows.append(final_outcome_targets(steps, outcome))
    return padded_targets(rows)
