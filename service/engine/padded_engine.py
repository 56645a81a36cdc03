"""The engine without a prefix cache: whole rows, for architectures that cannot share prefixes."""

import json
from collections.abc import Sequence
from functools import partial

from model_store.network.model import RewardModel, padding_tokens, score_rows
from service.engine.contract import SequenceScores
from service.engine.device_memory import within_memory
from service.engine.prefix_engine import ROW_TOKENS


class PaddedEngine:
    """Scores whole sequences in rows padded on the right, and caches nothing between calls.

    One thread calls ``score``; any thread may call ``extend_lens`` and read the attributes.
    """

    def __init__(self, model: RewardModel) -> None:
        self._model = model
        weight = next(model.parameters())
        self.device = weight.device
        self.dtype = str(weight.dtype).removeprefix("torch.")
        self.vocabulary = model.vocabulary
        self.row_tokens = 1 if rescales_positions(model) else ROW_TOKENS[self.device.type]
        self.padding_tokens = 0
        """Padding tokens computed so far."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Returns the raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: the batch does not fit into the device's memory.
            DeviceLost: the device has failed for good.
        """
        compute = partial(score_rows, self._model, token_ids, reads, row_tokens=self.row_tokens)
        raw = within_memory(compute, free_cache=lambda: None)
        self.padding_tokens += padding_tokens([len(ids) for ids in token_ids], self.row_tokens)
        return [SequenceScores(scores, len(ids)) for scores, ids in zip(raw, token_ids, strict=True)]

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Returns the length of each sequence: nothing is cached."""
        return [len(ids) for ids in token_ids]


def rescales_positions(model: RewardModel) -> bool:
    """Returns whether position embeddings depend on the longest sequence of a forward (dynamic and LongRoPE)."""
    rope = json.dumps([getattr(network.config, "rope_parameters", None) for network in model.backbones()], default=str)
    return '"dynamic"' in rope or '"longrope"' in rope
