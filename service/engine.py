"""Token ids in, raw scores out, on one device. Knows no text, no steps and no requests.

Axes: B sequences of a bucket, T tokens, R reads of a bucket.
"""

from collections.abc import Sequence
from typing import Final

import torch

from agentprm.errors import AgentPRMError
from model_store.model import RewardModel, load_model
from model_store.store import Checkpoint

# A bucket of its own costs a sequence about as much as this many padded tokens (launches, weights read once more).
SPLIT_TOKENS: Final = 256


class TorchEngine:
    """Scores with a model on its device; called from one thread."""

    def __init__(self, model: RewardModel) -> None:
        self._model = model
        weight = next(model.parameters())
        self.device = weight.device
        self.dtype = str(weight.dtype).removeprefix("torch.")

    @torch.inference_mode()
    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        """Raw scores of each sequence at its read positions, in the caller's order."""
        scores: list[list[float]] = [[] for _ in token_ids]
        for bucket in buckets([len(ids) for ids in token_ids]):
            read = self._forward([token_ids[index] for index in bucket], [reads[index] for index in bucket])
            for index, raw in zip(bucket, read, strict=True):
                scores[index] = raw
        return scores

    def _forward(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        longest = max(map(len, token_ids))
        # Padding is on the right and attention causal: no read position sees it, so no mask is needed.
        token_ids_BT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in token_ids], device=self.device)
        rows_R = [row for row, positions in enumerate(reads) for _ in positions]
        positions_R = [position for positions in reads for position in positions]
        raw = iter(self._model(token_ids_BT)[rows_R, positions_R].tolist())
        return [[next(raw) for _ in positions] for positions in reads]


def buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Indices grouped by length, longest first: a bucket ends where its padding would cost more than a new one."""
    grouped: list[list[int]] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if grouped:
            padding += lengths[grouped[-1][0]] - lengths[index]
        if not grouped or padding > SPLIT_TOKENS:
            grouped.append([])
            padding = 0
        grouped[-1].append(index)
    return grouped


def load_engine(checkpoint: Checkpoint, device: str, dtype: str) -> TorchEngine:
    """The engine of a checkpoint; "auto" is cuda where there is one, and on a CPU float32.

    Raises:
        CheckpointError: weights that cannot be loaded.
        AgentPRMError: a CUDA device was asked for and is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise AgentPRMError(f"device {device} is not there: torch finds {torch.cuda.device_count()} CUDA devices")
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    return TorchEngine(load_model(checkpoint, device, dtype))
