"""Checkpoints of published families on their way into the store."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

from model_store.errors import CheckpointError
from model_store.format.chat import ChatTemplate
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store
from model_store.format.template import Template
from model_store.importers.importer import ImportOptions, add_checkpoint
from model_store.importers.presets import PRESETS
from model_store.importers.text_tower import TOWERS
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.importers.importing import LINES, add, shard, write_recipe
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    add_head,
    byte_level,
    edit_config,
)


def test_what_was_imported_resolves_and_keeps_its_weights_as_they_are(store: Store, classifier: Path) -> None:
    published = add(store, classifier).checkpoint
    assert store.resolve("foreign") == published
    assert sorted(file.name for file in published.path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "prm.json",
        "tokenizer.json",
    ]
    assert (published.path / "model.safetensors").read_bytes() == (classifier / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="published already"):
        add(store, classifier)


def test_shards_score_as_the_whole(store: Store, tmp_path: Path, classifier: Path) -> None:
    whole = add(Store(tmp_path / "whole"), classifier).raw
    shard(classifier)
    assert add(store, classifier).raw == whole


def test_tensors_under_a_prefix_score_as_those_without(store: Store, tmp_path: Path) -> None:
    scores = []
    for prefix in ("", "pretrained_model."):
        source = tmp_path / f"source{prefix}"
        make_language_model(source, LlamaConfig, byte_level(["[PRM]"]), bos="")
        add_head(source, "LlamaForCausalLM", {"v_head.summary": torch.nn.Linear(16, 1, bias=False)}, prefix=prefix)
        if prefix:
            shard(source)
        scores.append(add_checkpoint(store, source, ImportOptions("pqm", f"1{prefix}", preset="pqm")).raw)
    assert scores[0] == scores[1]


def test_a_chat_template_in_the_file_of_a_processor_is_used(store: Store, classifier: Path) -> None:
    expected = add(Store(classifier.parent / "plain"), classifier).raw
    settings = json.loads((classifier / "tokenizer_config.json").read_text())
    (classifier / "chat_template.json").write_text(json.dumps({"chat_template": settings.pop("chat_template")}))
    (classifier / "tokenizer_config.json").write_text(json.dumps(settings))
    imported = add(store, classifier)
    assert imported.raw == expected
    assert imported.notes == ("the chat template is that of chat_template.json",)


def test_code_of_a_checkpoints_own_is_not_even_named(store: Store, classifier: Path) -> None:
    edit_config(classifier, auto_map={"AutoModel": "modeling_x.X"})
    (classifier / "modeling_x.py").write_text("raise SystemExit")
    published = add(store, classifier).checkpoint.path
    assert "auto_map" not in (published / "config.json").read_text()
    assert not (published / "modeling_x.py").exists()


def test_a_recipe_of_ones_own_reads_a_head_that_no_family_has(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tokenizer = make_language_model(source, LlamaConfig, byte_level(["<s>"]), bos="<s>")
    add_head(source, "LlamaForValue", {"value_head.out": torch.nn.Linear(16, 2)})
    score = {"head": "linear", "layers": ["value_head.out"], "output": 0, "activation": "sigmoid"}
    imported = add(store, source, recipe=write_recipe(tmp_path / "mine.json", score, LINES | {"begin": "{bos}"}))
    manifest = imported.checkpoint.manifest
    assert manifest.score.layers == ("value_head.out",)
    assert manifest.texts.begin == "<s>"
    by_token = write_recipe(tmp_path / "token.json", {"head": "token", "tokens": ["Ġ"], "activation": "sigmoid"}, LINES)
    manifest = add_checkpoint(store, source, ImportOptions("foreign", "2", recipe=by_token)).checkpoint.manifest
    assert manifest.score.tokens == (tokenizer.token_to_id("Ġ"),)


DOCS = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")


def test_the_docs_know_every_preset_text_tower_and_field() -> None:
    names = [
        *PRESETS,
        *TOWERS,
        *(field.name for kind in (ScoreRecipe, Template, ChatTemplate) for field in fields(kind)),
    ]
    assert [name for name in names if f"`{name}`" not in DOCS] == []


def test_the_recipe_in_the_docs_reads_a_value_head_over_chat_turns(store: Store, tmp_path: Path) -> None:
    source, recipe = tmp_path / "source", tmp_path / "mine.json"
    make_language_model(source, Qwen2Config, byte_level(CHATML_TOKENS), bos="<|im_start|>", chat=CHATML)
    add_head(source, "Qwen2ForValue", {"value_head": torch.nn.Linear(16, 1)})
    recipe.write_text(DOCS.partition("```json")[2].partition("```")[0])
    template = add(store, source, recipe=recipe).checkpoint.manifest.texts
    assert template.action == ("<|im_start|>assistant\n", "<|im_end|>\n")
