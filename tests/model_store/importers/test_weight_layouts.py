"""Weights in other files and under other names than transformers saves today."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, GPT2Config, LlamaConfig, OPTConfig, Qwen2Config

from model_store.format.store import Store
from tests.model_store.authors import FAMILIES, STEPS, TASK, chatml_promises, make_classifier
from tests.model_store.authors_of_logits import make_language_model, math_shepherd_promises
from tests.model_store.importers.importing import add, refused, served_promises, shard
from tests.model_store.importers.test_adapters import write_adapter
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, byte_level, save, sentence_piece, weights_of

Weights = dict[str, Tensor]


def make(path: Path, kind: str) -> Any:
    tokenizer = byte_level(CHATML_TOKENS)
    shape: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "num_labels": 1, "pad_token_id": None}
    if kind == "qwen2":
        return make_classifier(path, Qwen2Config, CHATML_TOKENS, CHATML)
    if kind == "gpt2":
        config: Any = GPT2Config(n_embd=16, n_layer=2, n_head=4, **shape)
    else:
        config = OPTConfig(
            hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4, **shape
        )
    model: Any = AutoModelForSequenceClassification.from_config(config)
    save(path, model, tokenizer, bos=CHATML_TOKENS[0], chat=CHATML)
    return tokenizer


RENAMED: dict[str, Callable[[str], str]] = {
    "as saved": lambda name: name,
    "wrapped as a whole": lambda name: f"module.{name}",
    "wrapped without the head": lambda name: name if name.startswith("score") else f"pretrained_model.{name}",
    "without the model's own prefix": lambda name: name.removeprefix("model.").removeprefix("transformer."),
}


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "opt"])
def test_names_of_other_trainers_are_those_of_the_same_model(store: Store, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    tokenizer = make(source, kind)
    expected = chatml_promises(source, tokenizer, TASK, STEPS)
    weights = weights_of(source)
    for version, rename in enumerate(RENAMED.values()):
        renamed = {rename(name): tensor for name, tensor in weights.items()}
        save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
        imported = add(Store(tmp_path / f"store{version}"), source, context_length=1024).checkpoint
        assert served_promises(imported, STEPS) == pytest.approx(expected, abs=1e-5), version


def test_a_tied_output_layer_is_read_from_the_embeddings(store: Store, tmp_path: Path) -> None:
    """Absent from safetensors; in a .bin both names share their bytes."""
    source = tmp_path / "source"
    tokenizer = make_language_model(source, LlamaConfig, sentence_piece(), bos="<s>", tie_word_embeddings=True)
    weights = weights_of(source)
    assert "lm_head.weight" not in weights
    expected = math_shepherd_promises(source, tokenizer, TASK, STEPS)
    plain = add(store, source, preset="math-shepherd").checkpoint
    assert served_promises(plain, STEPS) == pytest.approx(expected, abs=1e-5)
    halves = {name: tensor.half() for name, tensor in weights.items()}
    tied = halves | {"lm_head.weight": halves["model.embed_tokens.weight"]}
    torch.save(tied, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as before torch 1.6
    (source / "model.safetensors").unlink()
    expected = math_shepherd_promises(source, tokenizer, TASK, STEPS)
    old = add(Store(tmp_path / "old"), source, preset="math-shepherd").checkpoint
    assert served_promises(old, STEPS) == pytest.approx(expected, abs=1e-5)
    assert {tensor.dtype for tensor in weights_of(old.path).values()} == {torch.float16}, "as they were"


def test_an_adapter_in_a_bin_file_is_merged(store: Store, tmp_path: Path, classifier: Path) -> None:
    adapter = tmp_path / "adapter"
    write_adapter(adapter, classifier)
    expected = add(Store(tmp_path / "plain"), adapter, classifier).raw
    torch.save(weights_of_adapter(adapter), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    imported = add(store, adapter, classifier)
    assert imported.raw == expected
    assert imported.notes == ("weights converted from .bin: adapter_model.safetensors",)


def weights_of_adapter(path: Path) -> Weights:
    (path / "adapter_model.safetensors").rename(path / "model.safetensors")
    weights = weights_of(path)
    (path / "model.safetensors").rename(path / "adapter_model.safetensors")
    return weights


def test_one_whole_file_is_read_before_the_shards_beside_it(store: Store, tmp_path: Path, classifier: Path) -> None:
    """As transformers does, if an author left both."""
    whole = (classifier / "model.safetensors").read_bytes()
    expected = add(Store(tmp_path / "plain"), classifier).raw
    shard(classifier)
    (classifier / "model-00002-of-00003.safetensors").unlink()
    (classifier / "model.safetensors").write_bytes(whole)
    assert add(store, classifier).raw == expected


def unmerged(path: Path) -> None:
    weights = weights_of(path) | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 16)}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def twice(path: Path) -> None:
    weights = weights_of(path)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_file(wrapped | {"score.weight": weights["score.weight"] + 1}, path / "model.safetensors")


def strange_index(path: Path) -> None:
    shard(path)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../up.safetensors"}}))


def other_bin(path: Path) -> None:
    (path / "model.safetensors").rename(path / "reward_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unmerged, r"lora_A\.weight of an adapter that is not merged"),
        (twice, r"holds score\.weight twice"),
        (strange_index, "names '../up.safetensors', which is no file beside it"),
        (other_bin, r"no safetensors file, nor pytorch_model\.bin"),
    ],
)
def test_weights_that_would_be_read_wrong_are_refused(
    store: Store, classifier: Path, change: Callable[[Path], None], message: str
) -> None:
    change(classifier)
    refused(store, classifier, message)


def test_configuration_of_another_source_and_a_base_exclude_each_other(
    store: Store, tmp_path: Path, classifier: Path
) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    refused(store, tmp_path / "adapter", "exclude each other", base=classifier, config_from=classifier)


def test_a_token_that_code_added_is_refused_unless_the_weights_have_a_row_for_it(store: Store, tmp_path: Path) -> None:
    source, base = tmp_path / "source", tmp_path / "base"
    FAMILIES["PQM"].make(source)
    make_language_model(base, LlamaConfig, byte_level([]), bos="")
    refused(store, source, r"no token for '\[PRM\]'", preset="pqm", config_from=base)
