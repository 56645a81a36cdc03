"""Language models whose class changes its logits, found by comparison where no list knows the field."""

from pathlib import Path
from typing import Any

import pytest
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig, PhiConfig

from model_store.format.store import Store
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.importers.importing import LINES, add, refused, write_recipe
from tests.model_store.tiny_checkpoints import byte_level

PAIR = {"head": "token_pair", "tokens": ["+", "-"], "activation": "softmax"}


@pytest.mark.parametrize(("kind", "field"), [(CohereConfig, "logit_scale"), (GraniteConfig, "logits_scaling")])
def test_changed_logits_are_found_without_knowing_the_field(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, field: str
) -> None:
    scaled: dict[str, Any] = {field: 4.0}
    make_language_model(tmp_path / "source", kind, byte_level(["<s>"]), bos="<s>", **scaled)
    recipe = write_recipe(tmp_path / "pair.json", PAIR, LINES)
    refused(store, tmp_path / "source", field, recipe=recipe)
    monkeypatch.setattr("model_store.network.head_loading.SCALED_LOGITS", ())
    refused(store, tmp_path / "source", "the language model's own logits give a sample", recipe=recipe)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (LlamaConfig, {"tie_word_embeddings": True}),
        (LlamaConfig, {"dtype": "bfloat16"}),
        (Gemma2Config, {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
        (PhiConfig, {}),
    ],
)
def test_logits_that_a_head_repeats_are_taken(store: Store, tmp_path: Path, kind: Any, more: dict[str, Any]) -> None:
    make_language_model(tmp_path / "source", kind, byte_level(["<s>"]), bos="<s>", **more)
    for version, score in (("pair", PAIR), ("mean", {"head": "vocabulary_mean", "activation": "sigmoid"})):
        if version == "mean" and kind is Gemma2Config:
            continue
        recipe = write_recipe(tmp_path / f"{version}.json", score, LINES)
        assert len(add(Store(tmp_path / version), tmp_path / "source", recipe=recipe).raw) == 2
