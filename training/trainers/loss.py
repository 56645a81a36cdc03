"""L_Q and L_A of AgentPRM (arXiv 2511.08325, eqs. 4 and 9) on whole trajectories. Axes: B trajectories, S steps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.data.dataset import pad


class Loss(NamedTuple):
    """Both losses, as scalar tensors."""

    promise: Tensor  # L_Q, eq. 4
    progress: Tensor  # L_A, eq. 9 with the 1/2 of Algorithm 1


class Counts(NamedTuple):
    """What the losses are means over: labelled steps, and steps that are labelled together with their predecessor."""

    steps: int
    pairs: int


def padded_targets(rows: Sequence[Sequence[float | None]]) -> tuple[Tensor, Tensor]:
    """Returns targets [B, S] of each trajectory and the mask [B, S] of the steps that have one (not None)."""
    target_BS = pad([torch.tensor([target or 0.0 for target in row]) for row in rows], 0.0)
    labelled_BS = pad([torch.tensor([target is not None for target in row]) for row in rows], value=False)
    return target_BS, labelled_BS


def counts(labelled_BS: Tensor) -> Counts:
    """Returns the labelled steps and pairs of a mask, at least one each."""
    pairs_BS = labelled_BS[:, 1:] & labelled_BS[:, :-1]
    return Counts(max(1, int(labelled_BS.sum())), max(1, int(pairs_BS.sum())))


def agentprm_loss(promise_BS: Tensor, target_BS: Tensor, labelled_BS: Tensor, over: Counts | None = None) -> Loss:
    """Returns L_Q over the labelled steps, and L_A over the steps labelled together with their predecessor.

    ``over`` are the counts of a whole update of which these trajectories are a part; the losses of all parts add up to
    those of the update. Without it they are the counts of these trajectories.
    """
    over = over or counts(labelled_BS)
    error_BS = promise_BS - target_BS
    both_BS = labelled_BS[:, 1:] & labelled_BS[:, :-1]
    return Loss(
        promise=0.5 * (error_BS.square() * labelled_BS).sum() / over.steps,
        progress=0.5 * ((error_BS[:, 1:] - error_BS[:, :-1]).square() * both_BS).sum() / over.pairs,
    )
