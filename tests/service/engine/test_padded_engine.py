"""The count of padding tokens of the padded engine."""

from copy import deepcopy
from typing import Any

import pytest
import torch

from model_store.network.model import RewardModel
from service.engine.padded_engine import PaddedEngine
from tests.service.engine.references import BATCH, Reference


def test_padding_tokens_are_those_computed_beyond_the_sequences(
    qwen2: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PaddedEngine(deepcopy(qwen2.model))
    computed: list[int] = []
    forward = RewardModel.forward

    def counted(model: RewardModel, token_ids_BT: torch.Tensor, **options: Any) -> torch.Tensor:
        computed.append(token_ids_BT.numel())
        return forward(model, token_ids_BT, **options)

    monkeypatch.setattr(RewardModel, "forward", counted)
    for row_tokens, pads in ((512, True), (60, True), (1, False)):
        engine.row_tokens, before = row_tokens, engine.padding_tokens
        computed.clear()
        engine.score(BATCH, [[0]] * len(BATCH))
        assert engine.padding_tokens - before == sum(computed) - sum(map(len, BATCH))
        assert (engine.padding_tokens > before) == pads
