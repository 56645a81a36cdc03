"""The trainer's pass through a model: the promises of whole trajectories, packed without padding where that is exact.

Axes: B trajectories, S steps, R rows, T tokens, N reads in the order of steps, H hidden.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from model_store.network.model import RewardModel
from model_store.text.chat_renderer import ReadTokens
from training.data.dataset import pad
from training.data.encoding import Encoded
from training.trainers.packed_attention import NAME, UnsupportedAttentionError

TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Largest difference of a hidden state from that of its row alone, over its norm. A foreign token costs more."""


class Forward:
    """Computes promises of trajectories. With ``padded``, rows are padded to the longest; else they lie end to end.

    The backbone computes in ``dtype``, the head in float32.
    """

    def __init__(self, model: RewardModel, dtype: torch.dtype, *, padded: bool) -> None:
        self.model = model
        self.dtype = dtype
        self.padded = padded

    def promises(self, examples: Sequence[Encoded]) -> Tensor:
        """Returns the promise of every step [B, S], filled with zeros where a trajectory has fewer."""
        raw_N: Tensor = self.model.head(self.hidden([row for example in examples for row in example.rows]))
        return pad(list(torch.split(torch.sigmoid(raw_N), [example.steps for example in examples])), 0.0)

    def hidden(self, rows: Sequence[ReadTokens]) -> Tensor:
        """Returns the last hidden states at the reads of all rows [N, H]."""
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self._padded(rows, device) if self.padded else self._packed(rows, device)

    def _packed(self, rows: Sequence[ReadTokens], device: torch.device) -> Tensor:
        lengths = [len(row.token_ids) for row in rows]
        token_ids_1T = torch.tensor([list(chain.from_iterable(row.token_ids for row in rows))], device=device)
        positions_1T = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
        hidden_1TH = self.model.hidden(token_ids_1T, position_ids=positions_1T, row_lengths=lengths)
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
        reads = [start + read for start, row in zip(starts, rows, strict=True) for read in row.reads]
        return hidden_1TH[0, torch.tensor(reads, device=device)]

    def _padded(self, rows: Sequence[ReadTokens], device: torch.device) -> Tensor:
        token_ids_RT = pad([torch.tensor(row.token_ids) for row in rows], 0).to(device)
        at = torch.tensor([(index, read) for index, row in enumerate(rows) for read in row.reads], device=device)
        return self.model.hidden(token_ids_RT)[at[:, 0], at[:, 1]]


@contextmanager
def choose_forward(model: RewardModel, dtype: torch.dtype, examples: Sequence[Encoded]) -> Iterator[Forward]:
    """Yields the packed forward if it equals rows alone on this model, else the padded one.

    It is tried on the longest row of ``examples`` and on short ones. On leaving, the model has its own attention again.
    """
    backbone = model.backbone
    own = backbone.config._attn_implementation  # noqa: SLF001  (transformers has no public reader)
    sample = _sample(examples)
    plain, packed = Forward(model, dtype, padded=True), Forward(model, dtype, padded=False)
    with torch.no_grad():
        alone_NH = torch.cat([plain.hidden([row]) for row in sample]).float()
    try:
        if _is_equal(packed, sample, alone_NH):
            yield packed
        else:
            backbone.set_attn_implementation(own)
            yield plain
    finally:
        backbone.set_attn_implementation(own)


@torch.no_grad()
def _is_equal(packed: Forward, sample: Sequence[ReadTokens], alone_NH: Tensor) -> bool:
    try:
        packed.model.backbone.set_attn_implementation(NAME)
        packed_NH = packed.hidden(sample).float()
    except (UnsupportedAttentionError, TypeError, ValueError):  # a family that takes no positions, or passes a mask
        return False
    difference_N = (packed_NH - alone_NH).norm(dim=1) / alone_NH.norm(dim=1).clamp(min=1e-6)
    return float(difference_N.max()) <= TOLERANCE[packed.dtype]


def _sample(examples: Sequence[Encoded]) -> list[ReadTokens]:
    """Two short rows around the longest, so that both a row before and a row behind would show."""
    rows = sorted((row for example in examples for row in example.rows), key=lambda row: len(row.token_ids))
    return [rows[0], rows[-1], rows[len(rows) // 2]]
