"""The engine without a prefix cache: whole rows, for architectures that cannot share prefixes."""

from collections.abc import Sequence
from functools import partial

from model_store.network.model import RewardModel, padding_tokens, score_rows
from service.engine.attention_fields import rescaling_length
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
        self.row_tokens = ROW_TOKENS[self.device.type]
        lengths = [rescaling_length(network.config) for network in model.backbones()]
        self._unscaled = min((length for length in lengths if length is not None), default=None)
        self.padding_tokens = 0
        """Padding tokens computed so far."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        """Returns the raw scores of each sequence at its read positions, in the caller's order.

        Raises:
            OutOfMemory: the batch does not fit into the device's memory.
            DeviceLost: the device has failed for good.
        """
        raw = within_memory(partial(self._score, token_ids, reads), free_cache=lambda: None)
        return [SequenceScores(scores, len(ids)) for scores, ids in zip(raw, token_ids, strict=True)]

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        """Returns the length of each sequence: nothing is cached."""
        return [len(ids) for ids in token_ids]

    def _score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        if self._unscaled is None:
            return self._rows(token_ids, reads, self.row_tokens)
        return self._rescaled(token_ids, reads, self._unscaled)

    def _rows(
        self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], row_tokens: int
    ) -> list[list[float]]:
        raw = score_rows(self._model, token_ids, reads, row_tokens=row_tokens)
        self.padding_tokens += padding_tokens([len(ids) for ids in token_ids], row_tokens)
        return raw

    def _rescaled(
        self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], unscaled: int
    ) -> list[list[float]]:
        """Scores by rotary embeddings that change beyond ``unscaled`` tokens, for all tokens of a forward.

        A score depends on nothing after its token. So tokens up to that length are read in a forward without the
        later ones, and a longer sequence has a forward of its own.
        """
        early = [[position for position in positions if position < unscaled] for positions in reads]
        late = [list(positions[len(before) :]) for positions, before in zip(reads, early, strict=True)]
        raw: list[list[float]] = [[] for _ in token_ids]
        short = [number for number in range(len(raw)) if early[number] or not late[number]]
        scores = self._rows([token_ids[n][:unscaled] for n in short], [early[n] for n in short], self.row_tokens)
        for number, known in zip(short, scores, strict=True):
            raw[number] = known
        for number, positions in enumerate(late):
            if positions:
                raw[number] += self._rows([token_ids[number]], [positions], row_tokens=1)[0]
        return raw
