"""LoRA adapters, merged into their base."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config

from model_store.format.store import Store
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.importers.importing import add, refused, shard
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    byte_level,
    weights_of,
)


def write_adapter(path: Path, base: Path, **config: Any) -> dict[str, torch.Tensor]:
    """A LoRA adapter of two layers and a head of its own; returns the weights that it stands for."""
    path.mkdir()
    weights, tensors = weights_of(base), dict[str, torch.Tensor]()
    scale = config.get("lora_alpha", 8) / (2 if config.get("use_rslora") else 4)
    for layer in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        rows, columns = weights[f"{layer}.weight"].shape
        if config.get("fan_in_fan_out"):
            rows, columns = columns, rows
        down, up = torch.randn(4, columns), torch.randn(rows, 4)
        tensors |= {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
        change = up @ down
        weights[f"{layer}.weight"] += scale * (change.T if config.get("fan_in_fan_out") else change)
    weights["score.weight"] = tensors["base_model.model.score.weight"] = torch.randn(1, 16)
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}))
    return weights


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": 3}, {"fan_in_fan_out": True}], ids=str)
@pytest.mark.parametrize("sharded", [False, True])
def test_an_adapter_is_merged_into_its_base(
    store: Store, tmp_path: Path, classifier: Path, config: dict[str, Any], sharded: bool
) -> None:
    merged = write_adapter(tmp_path / "adapter", classifier, **config)
    if sharded:
        shard(classifier)
    published = add(store, tmp_path / "adapter", classifier).checkpoint
    found: dict[str, torch.Tensor] = {}
    for file in published.path.glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == merged.keys()
    for name, tensor in merged.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name


def test_an_adapter_tells_by_its_task_what_it_makes_of_a_language_model(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_language_model(base, Qwen2Config, byte_level(CHATML_TOKENS), bos="<|endoftext|>", chat=CHATML)
    write_adapter(tmp_path / "adapter", base, task_type="SEQ_CLS")
    assert add(store, tmp_path / "adapter", base).preset == "sequence-classification"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "only adapters of peft_type LORA"),
        ({"use_dora": True}, "use_dora is not merged here"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is not merged here"),
        ({"bias": "all"}, "adapters with a bias"),
        ({"r": "4"}, "r and lora_alpha must be numbers"),
        ({"r": 8}, "have other ranks than its r, 8"),
        *(
            ({"init_lora_weights": start}, f'init_lora_weights "{start}" changes the base.*merge the adapter')
            for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "unheard_of")
        ),
        ({"alora_invocation_tokens": [7, 8]}, "alora_invocation_tokens is not merged here; merge the adapter"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is not merged here"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters is not merged here"),
        ({"use_qalora": True}, "use_qalora is not merged here"),
        ({"a_kind_of_tomorrow": {"on": True}}, "a_kind_of_tomorrow is not merged here"),
    ],
)
def test_an_adapter_that_is_no_plain_sum_is_refused_by_name(
    store: Store, tmp_path: Path, classifier: Path, config: dict[str, Any], message: str
) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    refused(store, tmp_path / "adapter", message, base=classifier)


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.lora_embedding_A",
        "model.embed_tokens.token_adapter.trainable_tokens_delta",
        "model.embed_tokens.base_layer.weight",
        "model.layers.0.self_attn.q_proj.lora_B.bias",
        "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "score.modules_to_save.weight",
        "score.original_module.weight",
        "prompt_encoder.embedding",
    ],
)
def test_a_tensor_that_is_no_whole_weight_is_refused_by_name(
    store: Store, tmp_path: Path, classifier: Path, name: str
) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {f"base_model.model.{name}": torch.zeros(4, 4)}, file)
    refused(store, tmp_path / "adapter", rf"{re.escape(name)} is not merged here; merge the adapter", base=classifier)


def test_a_saved_module_that_nobody_reads_is_refused(store: Store, tmp_path: Path, classifier: Path) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.v_head.summary.weight": torch.zeros(1, 16)}, file)
    refused(store, tmp_path / "adapter", r"saves v_head\.summary\.weight, which neither its base", base=classifier)


def test_settings_of_training_and_of_the_library_do_not_matter(store: Store, tmp_path: Path, classifier: Path) -> None:
    quiet = {
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "down_proj"],
        "modules_to_save": ["score"],
        "megatron_core": "megatron.core",
        "loftq_config": {},
        "rank_pattern": {},
        "use_dora": False,
        "inference_mode": True,
        "init_lora_weights": "eva",
        "base_model_name_or_path": "someone/base",
    }
    write_adapter(tmp_path / "adapter", classifier, **quiet)
    assert add(store, tmp_path / "adapter", classifier).preset == "sequence-classification"


def test_saved_embeddings_are_refused_where_they_are_the_output_layer_too(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_language_model(base, Qwen2Config, byte_level(CHATML_TOKENS), bos="", chat=CHATML, tie_word_embeddings=True)
    write_adapter(tmp_path / "adapter", base, task_type="CAUSAL_LM")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors["base_model.model.score.weight"]
    embeddings = weights_of(base)["model.embed_tokens.weight"] + 1
    save_file(tensors | {"base_model.model.model.embed_tokens.weight": embeddings}, file)
    refused(store, tmp_path / "adapter", "which its base ties to its output layer; merge", base=base)


def test_an_adapter_of_another_base_is_refused(store: Store, tmp_path: Path, classifier: Path) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    good = dict(tensors)
    tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 16)
    save_file(tensors, file)
    refused(store, tmp_path / "adapter", r"changes layers\.9\.mlp\.up_proj\.lora_A", base=classifier)
    good["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 15)
    save_file(good, file)
    refused(store, tmp_path / "adapter", "shape", base=classifier)
    refused(store, tmp_path / "adapter", "name the checkpoint it belongs to with --base")
    refused(store, classifier, "it is no adapter of", base=classifier)
