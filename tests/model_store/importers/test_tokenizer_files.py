"""The files beside tokenizer.json, which must not say otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import Qwen2Config

from model_store.format.store import Store
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.importers.importing import add, refused
from tests.model_store.tiny_checkpoints import CHATML_TOKENS, byte_level


def edit_settings(path: Path, **changes: Any) -> None:
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"added_tokens_decoder": {"999": {"content": "<new>", "special": True}}}, "token '<new>' is not in"),
        ({"additional_special_tokens": ["<step>"]}, "changes the tokens of 'a <step> b<step>c'"),
        ({"eos_token": "<end>"}, "changes the tokens of 'a <end>"),
        ({"split_special_tokens": True}, "changes the tokens of"),
        ({"add_prefix_space": True}, "add_prefix_space true and tokenizer.json the opposite"),
    ],
)
def test_a_file_that_changes_tokens_is_refused(
    store: Store, classifier: Path, settings: dict[str, Any], message: str
) -> None:
    edit_settings(classifier, **settings)
    refused(store, classifier, f"{message}.*save it anew")


def test_a_token_that_only_an_old_file_has_is_refused(store: Store, classifier: Path) -> None:
    (classifier / "added_tokens.json").write_text('{"<step>": 500}')
    refused(store, classifier, "token '<step>' is not in tokenizer.json as 500; load the tokenizer")
    (classifier / "added_tokens.json").write_text("[]")
    refused(store, classifier, "must be an object")


def test_files_that_agree_are_taken(store: Store, classifier: Path) -> None:
    (classifier / "added_tokens.json").write_text(json.dumps({"<|im_end|>": end_of_turn(classifier)}))
    settings = {"add_prefix_space": False, "model_max_length": 9, "truncation_side": "left", "padding_side": "left"}
    edit_settings(classifier, **settings, clean_up_tokenization_spaces=True, pad_token="<|endoftext|>")
    assert add(store, classifier).preset == "sequence-classification"


def end_of_turn(path: Path) -> int:
    tokens = json.loads((path / "tokenizer.json").read_text())["added_tokens"]
    return int(next(token["id"] for token in tokens if token["content"] == "<|im_end|>"))


@pytest.mark.parametrize(
    ("processor", "settings", "begin"),
    [
        (None, {}, "<|endoftext|>"),
        (None, {"add_bos_token": False}, ""),
        (None, {"add_bos_token": True}, "<|endoftext|>"),
        ("byte level", {}, ""),
        ("byte level", {"add_bos_token": False}, ""),
        ("template", {"add_bos_token": True}, "<|im_start|>"),
        ("byte level", {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True}, "<|endoftext|>"),
        ("template", {}, "<|im_start|>"),
        ("template", {"bos_token": None}, "<|im_start|>"),
    ],
)
def test_a_text_begins_as_the_tokenizer_itself_begins_it(
    store: Store, tmp_path: Path, processor: str | None, settings: dict[str, Any], begin: str
) -> None:
    tokenizer = byte_level(CHATML_TOKENS)
    start = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = {
        None: None,
        "byte level": processors.ByteLevel(trim_offsets=False),
        "template": processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]),
    }[processor]
    make_language_model(tmp_path / "source", Qwen2Config, tokenizer, bos="<|endoftext|>")
    edit_settings(tmp_path / "source", **settings)
    assert add(store, tmp_path / "source", preset="er-prm").checkpoint.manifest.texts.begin == begin


@pytest.mark.parametrize(("template", "wanted"), [("<|im_start|> $A", False), ("$A", True)])
def test_files_that_disagree_about_the_beginning_are_refused(
    store: Store, tmp_path: Path, template: str, *, wanted: bool
) -> None:
    tokenizer = byte_level(CHATML_TOKENS)
    special = [("<|im_start|>", tokenizer.token_to_id("<|im_start|>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    make_language_model(tmp_path / "source", Qwen2Config, tokenizer, bos="<|im_start|>")
    edit_settings(tmp_path / "source", add_bos_token=wanted)
    refused(store, tmp_path / "source", "add_bos_token .* the opposite", preset="er-prm")
