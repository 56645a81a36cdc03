"""Checkpoints and recipes that cannot be imported."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from transformers import LlamaConfig

from model_store.format.store import Store
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.importers.importing import LINES, refused, shard, write_recipe
from tests.model_store.tiny_checkpoints import (
    CHATML_TOKENS,
    byte_level,
    edit_config,
    sentence_piece,
    weights_of,
)


def drop(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def drop_tensor(path: Path) -> None:
    weights = weights_of(path)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def break_head(path: Path) -> None:
    weights = weights_of(path)
    weights["score.weight"][0, 0] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def bin_that_is_none(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def lose_a_shard(path: Path) -> None:
    shard(path)
    (path / "model-00002-of-00003.safetensors").unlink()


def lose_the_index(path: Path) -> None:
    shard(path)
    (path / "model.safetensors.index.json").unlink()


def thinking(path: Path) -> None:
    """A template that shows thoughts in the last turn only."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last %}<think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("config.json"), r"config\.json cannot be read"),
        (drop("tokenizer.json"), r"no tokenizer\.json"),
        (drop("model.safetensors"), "no safetensors file"),
        (drop("tokenizer_config.json"), "has no chat template, which this preset renders by"),
        (bin_that_is_none, "was not converted: pytorch_model.bin: it holds something other than tensors"),
        (lose_a_shard, "lacks model-00002-of-00003"),
        (lose_the_index, "3 safetensors files and no"),
        (drop_tensor, "tensors are missing"),
        (break_head, "NaN or infinity"),
        (lambda path: edit_config(path, quantization_config={}), "quantised"),
        (lambda path: edit_config(path, dtype="float8"), "dtype must be one of"),
        (lambda path: edit_config(path, max_position_embeddings=None), "context_length must be a whole number"),
        (lambda path: edit_config(path, architectures=["Qwen2ForCausalLM"]), "does not tell how it scores"),
        (lambda path: edit_config(path, architectures={}), "a model without architectures.*does not tell"),
        (lambda path: edit_config(path, model_type="unheard_of"), "cannot be loaded"),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_one_sentence_and_nothing_is_published(
    store: Store, classifier: Path, change: Callable[[Path], object], message: str
) -> None:
    change(classifier)
    refused(store, classifier, message)


def test_texts_around_turns_cannot_follow_a_template_that_changes_turns(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_language_model(source, LlamaConfig, byte_level(CHATML_TOKENS), bos="<|im_start|>")
    thinking(source)
    refused(store, source, "renders a turn differently once others follow", preset="rlhflow")


def test_a_tokenizer_without_the_separator_is_another_family(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_language_model(source, LlamaConfig, sentence_piece(), bos="<s>")
    refused(store, source, r"no token for '\[PRM\]', which ends each step", preset="pqm")
    refused(store, source, r"no token .*, which the recipe reads", preset="er-prm")
    refused(store, source, "there is no preset 'nobodys'", preset="nobodys")


def test_a_recipe_that_is_wrong_names_the_field(store: Store, tmp_path: Path, classifier: Path) -> None:
    mine = tmp_path / "mine.json"
    refused(store, classifier, "cannot be read", recipe=mine)
    mine.write_text("[]")
    refused(store, classifier, "must be an object with score, and template or chat", recipe=mine)
    mine.write_text('{"score": 1, "template": {}}')
    refused(store, classifier, "score, template and chat must be objects", recipe=mine)
    write_recipe(mine, {"head": "linear", "activation": "softmax"}, LINES)
    refused(store, classifier, "score: activation", recipe=mine)
    write_recipe(mine, {"head": "mlp", "activation": "sigmoid", "layers": ["a", "b"]}, LINES)
    refused(store, classifier, r"no tensor a\.weight", recipe=mine)
