import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from model_store.model import RewardModel, new_model
from service.engine import SPLIT_TOKENS, TorchEngine, buckets

VOCABULARY = 50
sequences = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = new_model(config, seed=0).eval()
    torch.nn.init.normal_(model.head.weight_H, generator=torch.Generator().manual_seed(0))
    return model


@given(token_ids=st.lists(sequences, min_size=1, max_size=8), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_batch_scores_as_each_sequence_alone(
    model: RewardModel, token_ids: list[list[int]], data: st.DataObject
) -> None:
    reads = [data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=3)) for ids in token_ids]
    together = TorchEngine(model).score(token_ids, reads)
    for ids, positions, raw in zip(token_ids, reads, together, strict=True):
        with torch.inference_mode():
            alone = model(torch.tensor([ids]))[0, positions].tolist()
        assert raw == pytest.approx(alone, abs=1e-5)


@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_buckets_hold_every_sequence_once_and_little_padding(lengths: list[int]) -> None:
    grouped = buckets(lengths)
    assert sorted(index for bucket in grouped for index in bucket) == list(range(len(lengths)))
    for bucket in grouped:
        longest = max(lengths[index] for index in bucket)
        assert sum(longest - lengths[index] for index in bucket) <= SPLIT_TOKENS
