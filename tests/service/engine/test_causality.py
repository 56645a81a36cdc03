"""Models whose tokens read later ones are refused."""

import pytest
from transformers import Gemma3TextConfig, LlamaConfig

from model_store.errors import CheckpointError
from service.engine.selection import choose_engine
from tests.service.engine.references import CONTEXT_LENGTH
from tests.service.engine.sharp_models import sharp_model


@pytest.mark.parametrize(
    ("config", "shape"),
    [(Gemma3TextConfig, {"use_bidirectional_attention": True}), (LlamaConfig, {"is_causal": False})],
)
def test_a_model_that_reads_later_tokens_is_refused_in_one_sentence(
    config: type[LlamaConfig], shape: dict[str, bool]
) -> None:
    model = sharp_model(config, **shape)
    with pytest.raises(CheckpointError, match=r"^\w+Model lets tokens read later ones, .*; only causal models"):
        choose_engine(model, prefix_cache_bytes=0, context_length=CONTEXT_LENGTH)
