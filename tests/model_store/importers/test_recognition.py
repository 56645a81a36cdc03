"""Heads whose files do not say what their outputs mean: refused with what to do, or read by a recipe."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig, Qwen2Config

from agentprm.types import Step, Trajectory
from model_store.format.store import Store
from model_store.network.model import load_model, score_rows
from model_store.text.renderer import load_renderer
from tests.model_store.authors import make_trl
from tests.model_store.authors_of_tags import make_reasonflux
from tests.model_store.importers.importing import LINES, add, refused, write_recipe
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    byte_level,
    config_of,
    edit_config,
    save,
    weights_of,
    whole,
)


def make_labelled(path: Path, kind: Any, labels: int) -> Any:
    tokenizer = byte_level(CHATML_TOKENS)
    save(path, kind.from_config(config_of(Qwen2Config, tokenizer, num_labels=labels)), tokenizer, chat=CHATML)
    return tokenizer


@pytest.mark.parametrize("labels", [2, 5])
def test_several_labels_need_a_recipe_that_says_which_is_good(store: Store, tmp_path: Path, labels: int) -> None:
    make_labelled(tmp_path / "source", AutoModelForSequenceClassification, labels)
    refused(store, tmp_path / "source", f"with {labels} labels does not tell which is good.*recipe whose score.output")


def test_a_classifier_of_two_labels_is_read_by_a_recipe(store: Store, tmp_path: Path) -> None:
    tokenizer = make_labelled(tmp_path / "source", AutoModelForSequenceClassification, 2)
    score = {"head": "linear", "output": 0, "activation": "softmax"}
    checkpoint = add(store, tmp_path / "source", recipe=write_recipe(tmp_path / "two.json", score, LINES)).checkpoint
    rendered = load_renderer(checkpoint).trajectory(Trajectory("She eats", (Step("three", "16 - 3"),)))
    ((raw,),) = score_rows(load_model(checkpoint, "cpu", "auto"), [rendered.token_ids], [rendered.step_ends])
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "source").eval()
    ids = [token for text in ("She eats", "\n", "three", "\n", "16 - 3", "\n") for token in whole(tokenizer, text)]
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].softmax(-1)[0].item()
    assert checkpoint.manifest.score.promise(raw) == pytest.approx(expected, abs=1e-5)


def test_token_classifiers_of_other_trainers_need_a_recipe(store: Store, tmp_path: Path) -> None:
    make_labelled(tmp_path / "one", AutoModelForTokenClassification, 1)
    refused(store, tmp_path / "one", "with 1 label is not of TRL's.*activation sigmoid for one label")
    make_labelled(tmp_path / "three", AutoModelForTokenClassification, 3)
    refused(store, tmp_path / "three", "with 3 labels is not of TRL's.*score.output for several")


def test_labels_with_names_of_their_own_need_a_preset(store: Store, tmp_path: Path) -> None:
    make_trl(tmp_path / "source")
    edit_config(tmp_path / "source", id2label={"0": "correct", "1": "wrong"})
    refused(store, tmp_path / "source", "calls the labels correct, wrong; name --preset trl-prm if the second is good")
    assert add(store, tmp_path / "source", preset="trl-prm").preset == "trl-prm"


def test_a_regression_needs_a_preset(store: Store, classifier: Path) -> None:
    edit_config(classifier, problem_type="regression")
    refused(store, classifier, "problem_type regression; name --preset sequence-regression")
    assert add(store, classifier, preset="sequence-regression").preset == "sequence-regression"


def test_a_bias_that_the_class_would_not_read_is_refused(store: Store, classifier: Path) -> None:
    weights = weights_of(classifier) | {"score.bias": torch.ones(1)}
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    refused(store, classifier, r"score\.bias, which no sequence classifier of transformers reads")
    refused(store, classifier, "give a recipe, which adds it", preset="sequence-regression")


def test_another_system_text_is_another_family(store: Store, tmp_path: Path) -> None:
    make_reasonflux(tmp_path / "source")
    refused(store, tmp_path / "source", "opens a chat with .*helpful assistant.*--preset reasonflux-prm follows")
    refused(store, tmp_path / "source", "--preset reasonflux-prm follows", preset="qwen-math-prm")
    template = add(store, tmp_path / "source", preset="reasonflux-prm").checkpoint.manifest.texts
    assert "helpful assistant" in template.task[0]


def test_a_model_that_reads_later_steps_too_is_refused(store: Store, tmp_path: Path) -> None:
    tokenizer = byte_level(CHATML_TOKENS)
    model = AutoModelForSequenceClassification.from_config(config_of(BertConfig, tokenizer, num_labels=1))
    save(tmp_path / "source", model, tokenizer)
    score = {"head": "linear", "layers": ["classifier"], "activation": "sigmoid"}
    recipe = write_recipe(tmp_path / "encoder.json", score, LINES)
    refused(store, tmp_path / "source", "does not read from left to right", recipe=recipe)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_norm.weight", "model.layers.7.mlp.up_proj.weight", "layers.0.lora.weight"]
)
def test_tensors_of_layers_that_nobody_reads_are_refused(store: Store, classifier: Path, name: str) -> None:
    weights = weights_of(classifier) | {name: torch.ones(8)}
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    refused(store, classifier, "does not read .* and 0 other tensors of its layers; they are of another class")


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "visual.blocks.0.attn.qkv.weight", "mtp.layers.0.norm.weight"],
)
def test_buffers_and_other_towers_are_no_such_tensors(store: Store, classifier: Path, name: str) -> None:
    weights = weights_of(classifier) | {name: torch.ones(4)}
    save_file(weights, classifier / "model.safetensors", metadata={"format": "pt"})
    assert add(store, classifier).preset == "sequence-classification"


def test_the_separator_of_other_families_is_fixed(store: Store, tmp_path: Path, classifier: Path) -> None:
    refused(store, classifier, "the separator of sequence-classification is fixed", separator="\n\n")
    refused(store, classifier, "the separator of own recipe is fixed", separator="\n\n", recipe=mine(tmp_path))


def mine(path: Path) -> Path:
    return write_recipe(path / "mine.json", {"head": "linear", "activation": "sigmoid"}, LINES)


def test_the_separator_that_was_read_at_is_said(store: Store, tmp_path: Path) -> None:
    make_trl(tmp_path / "source")
    assumed = add(store, tmp_path / "source")
    assert assumed.notes == (
        r"steps are read at the separator '\n', which is assumed, as no file says it; --separator names another",
    )
    asked = add(Store(tmp_path / "other"), tmp_path / "source", separator="\n\n")
    assert asked.notes == (r"steps are read at the separator '\n\n'",)
    assert asked.checkpoint.manifest.texts.action == ("", "\n\n")
