"""Fields of a checkpoint's files that change scores: each is followed or refused, and the docs say which."""

from pathlib import Path
from typing import Any

import pytest

from model_store.format.store import Store
from model_store.importers.config_fields import FIELDS, unknown_fields
from model_store.network.lora import FOLLOWED, WITHOUT_EFFECT
from tests.model_store.importers.importing import add, refused, write_recipe
from tests.model_store.importers.test_recognition import mine
from tests.model_store.tiny_checkpoints import edit_config

DOCS = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization_config": {"bits": 4}}, "quantization_config: the weights are quantised"),
        ({"compression_config": {}}, "compression_config: the weights are quantised"),
        ({"is_encoder_decoder": True}, "only models that read from left to right"),
        ({"use_bidirectional_attention": True}, "would change with later steps"),
        ({"is_causal": False}, "would change with later steps"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"use_mrl": True}, "use_mrl"),
        ({"normalize_reward": True}, "recipe with a calibration"),
        ({"mean": 0.5}, "recipe with a calibration"),
        ({"std": 2.0}, "recipe with a calibration"),
        ({"reward_scale": 3.0}, "reward_scale may change the score"),
        ({"logit_bias": [1.0]}, "logit_bias may change the score"),
        ({"pooling_type": "mean"}, "pooling_type may change the score"),
        ({"score_normalizer": "tanh"}, "score_normalizer may change the score"),
    ],
)
def test_a_field_that_would_change_scores_is_refused_by_name(
    store: Store, classifier: Path, fields: dict[str, Any], message: str
) -> None:
    edit_config(classifier, **fields)
    refused(store, classifier, message)


def test_fields_that_change_nothing_are_taken(store: Store, classifier: Path) -> None:
    quiet: dict[str, Any] = {"mean": 0.0, "std": 1.0, "use_mrl": False, "normalize_reward": False, "reward_scale": None}
    quiet |= {"output_scores": False, "is_causal": True, "use_bidirectional_attention": None, "pruned_heads": {}}
    edit_config(classifier, **quiet, my_trainer="1.0", rope_scaling=None)
    assert add(store, classifier).preset == "sequence-classification"


def test_a_recipe_answers_for_fields_that_only_its_author_knows(store: Store, tmp_path: Path, classifier: Path) -> None:
    edit_config(classifier, reward_scale=3.0, mean=0.5)
    assert add(store, classifier, recipe=mine(tmp_path)).preset == "own recipe"
    edit_config(classifier, use_mrl=True)
    refused(Store(tmp_path / "other"), classifier, "use_mrl", recipe=write_recipe(mine(tmp_path), {}, {}))


def test_what_a_config_class_knows_is_left_to_it() -> None:
    assert unknown_fields({"model_type": "gemma2", "final_logit_softcapping": 30.0}) == []
    assert unknown_fields({"model_type": "cohere", "logit_scale": 0.1}) == []
    assert unknown_fields({"model_type": "unheard_of", "reward_scale": 0.1}) == []
    assert unknown_fields({"model_type": "qwen2", "reward_scale": 0.1, "score_bias": True}) == [
        "reward_scale",
        "score_bias",
    ]


def test_the_docs_hold_a_row_for_every_field() -> None:
    for field in FIELDS:
        names = ", ".join(name if " " in name else f"`{name}`" for name in field.names)
        handling = f"{field.handling}: {field.reason}" if field.reason else field.handling
        assert f"| `{field.file}` | {names} | {field.changes} | {handling} |" in DOCS


def test_the_fields_of_an_adapter_that_are_followed_are_in_the_table() -> None:
    listed = {name for field in FIELDS for name in field.names}
    assert FOLLOWED - listed == {"peft_type", "bias"}, "the two that have one value only"
    assert not listed & WITHOUT_EFFECT
